import { spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { expect, test } from 'vitest';
import { needs } from '../support/needs.ts';

const lacking = needs('root');

const program = fileURLToPath(new URL('../../bench/containerd-load.mjs', import.meta.url));

test.skipIf(lacking)(`under load no call fails, nothing leaks, and the store stays clean${lacking}`, () => {
  const { status, stdout, stderr } = spawnSync(process.execPath, [program, '--calls', '768', '--json'], {
    encoding: 'utf8',
  });
  expect({ status, stderr }).toEqual({ status: 0, stderr: '' });
  const result = JSON.parse(stdout) as { runs: { connections: number; calls: number }[]; check: string };
  expect(result.check).toBe('clean');
  expect(result.runs.map(({ connections }) => connections)).toEqual([1, 8, 64, 64]);
  for (const { calls } of result.runs) expect(calls).toBeGreaterThanOrEqual(768);
});
