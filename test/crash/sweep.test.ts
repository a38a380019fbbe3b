import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { needs } from '../support/needs.ts';
import { sample, sampled } from '../support/sample.ts';
import { operations } from './operate.mjs';
import { type Point, Sweep, inParallel } from './sweep.ts';

const lacking = needs('root', 'strace', 'sqlite3', 'setfattr', 'unshare');

/** Ways in which a call can fail. */
const failures = [
  ['EIO', 'once'],
  ['EIO', 'from then on'],
  ['ENOSPC', 'once'],
  ['ENOSPC', 'from then on'],
] as const;

describe.skipIf(lacking).each(sample(Object.keys(operations), { some: 5, others: 6 }))(
  `%s, disturbed at its system calls${lacking}`,
  (operation) => {
    let sweep: Sweep;
    beforeAll(async () => {
      sweep = await Sweep.begin(operation);
    });
    afterAll(() => sweep.end());

    /** Disturbs the operation at one call after the other, and wants nothing to be wrong afterwards. */
    function disturbed(what: string, disturb: (point: Point) => Promise<string[]>): Promise<void> {
      return sampled(async () => {
        const points = sample(sweep.points, { some: 5, others: 8 });
        const wrong: string[] = [];
        await inParallel(points, async (point) => void wrong.push(...(await disturb(point))));
        console.log(`${operation}: ${what} at ${points.length} of ${sweep.points.length} system calls`);
        expect(wrong).toEqual([]);
        expect(points.length).toBeGreaterThan(0);
      });
    }

    test(`${operation} is done or not begun after a kill`, () =>
      disturbed('killed', (point) => sweep.kill(point)));

    test.each(sample(failures, { some: 2, others: 2 }))(
      `${operation} fails with a typed error, and is done or not begun, when a call fails with %s %s`,
      (error, often) =>
        disturbed(`${error} ${often}`, (point) => sweep.fail(point, error, often === 'from then on')),
    );
  },
);
