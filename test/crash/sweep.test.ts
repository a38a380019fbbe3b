import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { isRoot } from '../support/needs.ts';
import { missing } from '../support/tree.ts';
import { operations } from './operate.mjs';
import { type Point, Sweep, inParallel } from './sweep.ts';

const lacking = [...(isRoot ? [] : ['root']), ...missing('strace', 'sqlite3', 'setfattr', 'unshare')];
const needs = lacking.length === 0 ? '' : ` (needs ${lacking.join(', ')})`;

/** `SWEEP=full` lets calls fail in every way; without it, in two that have the most in them. */
const ways = [
  ['EIO', 'once'],
  ['ENOSPC', 'from then on'],
  ...(process.env['SWEEP'] === 'full' ? [['EIO', 'from then on'] as const, ['ENOSPC', 'once'] as const] : []),
] as const;

describe.skipIf(needs !== '')(`at any system call${needs}`, () => {
  describe.each(Object.keys(operations))('of %s', (operation) => {
    let sweep: Sweep;
    beforeAll(async () => {
      sweep = await Sweep.begin(operation);
    }, 600_000);
    afterAll(() => sweep.end());

    /** Disturbs the operation at one call after the other, and wants nothing to be wrong afterwards. */
    async function go(what: string, disturb: (point: Point) => Promise<string[]>): Promise<void> {
      const wrong: string[] = [];
      await inParallel(sweep.points, async (point) => void wrong.push(...(await disturb(point))));
      console.log(`${operation}: ${what} at ${sweep.points.length} system calls`);
      expect(wrong).toEqual([]);
      expect(sweep.points.length).toBeGreaterThan(0);
    }

    test('a kill leaves all of it or nothing', () => go('killed', (point) => sweep.kill(point)), 600_000);

    test.each(ways)(
      'a disk that fails with %s %s leaves a typed error, and all of it or nothing',
      (error, often) =>
        go(`${error} ${often}`, (point) => sweep.fail(point, error, often === 'from then on')),
      600_000,
    );
  });
});
