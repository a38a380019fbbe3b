import { describe, expect, test } from 'vitest';
import { isRoot } from '../support/mount.ts';
import { missing } from '../support/tree.ts';
import { operations } from './operate.mjs';
import { Sweep, inParallel } from './sweep.ts';

const lacking = [...(isRoot ? [] : ['root']), ...missing('strace', 'sqlite3', 'setfattr', 'unshare')];
const needs = lacking.length === 0 ? '' : ` (needs ${lacking.join(', ')})`;

/** `SWEEP=full` lets calls fail in every way; without it, in two that have the most in them. */
const ways = [
  ['EIO', 'once'],
  ['ENOSPC', 'from then on'],
  ...(process.env['SWEEP'] === 'full' ? [['EIO', 'from then on'] as const, ['ENOSPC', 'once'] as const] : []),
] as const;

describe.skipIf(needs !== '')(`a disk that fails at any system call${needs}`, () => {
  describe.each(ways)('with %s %s', (error, often) => {
    test.each(Object.keys(operations))(
      'in %s: a typed error, and all of it or nothing',
      async (operation) => {
        const sweep = await Sweep.begin(operation);
        const wrong: string[] = [];
        try {
          await inParallel(sweep.points, async (point) => {
            wrong.push(...(await sweep.fail(point, error, often === 'from then on')));
          });
        } finally {
          sweep.end();
        }
        console.log(`${operation}: ${error} ${often} at ${sweep.points.length} system calls`);
        expect(wrong).toEqual([]);
        expect(sweep.points.length).toBeGreaterThan(0);
      },
      600_000,
    );
  });
});
