import { spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';

const main = fileURLToPath(new URL('../../dist/cli/main.js', import.meta.url));

let directory: string;
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'overlite-cli-'));
  mkdirSync(join(directory, 'source/sub'), { recursive: true });
  mkdirSync(join(directory, 'tmp'), { mode: 0o777 });
  for (const name of ['one', 'two', 'three', 'sub/four'])
    writeFileSync(join(directory, 'source', name), name);
});
afterEach(() => rmSync(directory, { recursive: true }));

function overlite(...args: string[]): { status: number | null; stdout: string; stderr: string } {
  const env = { ...process.env, TMPDIR: join(directory, 'tmp') };
  return spawnSync(process.execPath, [main, ...args], { encoding: 'utf8', env });
}

describe('overlite demo', () => {
  test('shows the tree, the layers and the times, and leaves nothing behind', () => {
    const { status, stdout, stderr } = overlite('demo', join(directory, 'source'));
    expect({ status, stderr }).toEqual({ status: 0, stderr: '' });
    for (const line of ['├─ alice-1  (committed', '│  ├─ carol  (active)', 'bob', 'What took how long']) {
      expect(stdout).toContain(line);
    }
    expect(readdirSync(join(directory, 'tmp'))).toEqual([]);
  });

  test('of what is no directory fails with its code and makes nothing', () => {
    const { status, stderr } = overlite('demo', join(directory, 'missing'));
    expect(status).toBe(1);
    expect(stderr).toMatch(/^overlite: INVALID_ARGUMENT: .* is not a directory\n$/);
    expect(readdirSync(join(directory, 'tmp'))).toEqual([]);
  });
});

describe('overlite', () => {
  test.each([[['--help']], [['--version']], [['demo', '--help']]])('%j prints and succeeds', (args) => {
    const { status, stdout } = overlite(...args);
    expect(status).toBe(0);
    expect(stdout).not.toBe('');
  });

  test.each([[['nonsense']], [['demo', '--nonsense']], [['demo', 'a', 'b']]])('%j is wrong usage', (args) => {
    const { status, stderr } = overlite(...args);
    expect(status).toBe(2);
    expect(stderr).toMatch(/error:/);
  });
});
