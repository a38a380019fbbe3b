import { spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { describe, expect, test } from 'vitest';
import { isRoot } from '../support/needs.ts';

const client = fileURLToPath(new URL('../../bench/containerd-load.mjs', import.meta.url));

describe.skipIf(!isRoot)(`under load${isRoot ? '' : ' (needs root)'}`, () => {
  test('no call fails, nothing is kept, and the store is clean', () => {
    const { status, stdout, stderr } = spawnSync(process.execPath, [client, '--calls', '1500', '--json'], {
      encoding: 'utf8',
    });
    expect({ status, stderr }).toEqual({ status: 0, stderr: '' });
    const result = JSON.parse(stdout) as { runs: { connections: number; calls: number }[]; check: string };
    expect(result.check).toBe('clean');
    expect(result.runs.map(({ connections }) => connections)).toEqual([1, 8, 64, 64]);
    for (const { calls } of result.runs) expect(calls).toBeGreaterThanOrEqual(768);
  });
});
