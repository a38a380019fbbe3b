import { afterAll, beforeAll, describe, expect, test } from 'vitest';
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
  describe.each(Object.keys(operations))('in %s', (operation) => {
    let sweep: Sweep;
    beforeAll(async () => {
      sweep = await Sweep.begin(operation);
    });
    afterAll(() => sweep.end());

    test.each(ways)(
      'with %s %s: a typed error, and all of it or nothing',
      async (error, often) => {
        const wrong: string[] = [];
        await inParallel(sweep.points, async (point) => {
          wrong.push(...(await sweep.fail(point, error, often === 'from then on')));
        });
        console.log(`${operation}: ${error} ${often} at ${sweep.points.length} system calls`);
        expect(wrong).toEqual([]);
        expect(sweep.points.length).toBeGreaterThan(0);
      },
      600_000,
    );
  });
});
