import { spawnSync } from 'node:child_process';

/** Whether this process may mount. */
const isRoot = process.geteuid?.() === 0;

const found = new Map<string, boolean>([['root', isRoot]]);

function has(need: string): boolean {
  let there = found.get(need);
  if (there === undefined) {
    there = spawnSync('sh', ['-c', 'command -v "$1"', 'sh', need]).status === 0;
    found.set(need, there);
  }
  return there;
}

/**
 * What this machine lacks of the needs of some tests, which are `root` and names of commands: ` (needs root, strace)`, or
 * an empty text. It is for `skipIf` and for the title, so that a skipped test says why:
 *
 *     const lacking = needs('root', 'strace');
 *     test.skipIf(lacking)(`commit() syncs every file of a small layer${lacking}`, async ({ driver }) => { … });
 */
export function needs(...wanted: string[]): string {
  const lacking = wanted.filter((need) => !has(need));
  return lacking.length === 0 ? '' : ` (needs ${lacking.join(', ')})`;
}
