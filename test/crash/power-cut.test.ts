import { expect, describe, test } from 'vitest';
import { isRoot } from '../support/mount.ts';
import { missing } from '../support/tree.ts';
import { cutPower } from './power-cut.ts';

const lacking = [
  ...(isRoot ? [] : ['root']),
  ...missing('mkfs.ext4', 'mkfs.xfs', 'xfs_io', 'unshare', 'sqlite3'),
];
const needs = lacking.length === 0 ? '' : ` (needs ${lacking.join(', ')})`;

/** How many cuts, on each filesystem: `CUTS=1000 npm run test:cuts` makes as many as one likes. */
const cuts = Number(process.env['CUTS'] ?? 20);
/** Where the random numbers begin: `SEED=n CUTS=1` repeats a cut that lost something. */
const seed = Number(process.env['SEED'] ?? Date.now() % 1_000_000);

describe.skipIf(needs !== '')(`a power cut${needs}`, () => {
  test.each(['ext4', 'xfs'] as const)(
    'takes nothing back that was acknowledged, on %s',
    async (type) => {
      const outcome = await cutPower({ type, cuts, seed });
      const { acknowledged, inReusedWal, violations } = outcome;
      console.log(
        `${type}: ${outcome.cuts} power cuts (seed ${seed}), ${acknowledged} acknowledged changes, ` +
          `${inReusedWal} of them in a WAL that was used again; lost: ${violations.length}`,
      );
      expect(violations).toEqual([]);
      expect(outcome.cuts).toBe(cuts);
      expect(acknowledged).toBeGreaterThan(cuts);
      expect(inReusedWal).toBeGreaterThan(acknowledged / 10);
    },
    60_000 + cuts * 10_000,
  );

  // If it did not, the cuts above would prove nothing.
  test.each([
    ['ext4', { durability: 'metadata' }],
    ['xfs', { durability: 'metadata' }],
    ['ext4', { synchronous: 'normal' }],
    ['xfs', { synchronous: 'normal' }],
  ] as const)(
    'takes something back on %s with %j',
    async (type, plan) => {
      const {
        cuts: needed,
        violations,
        acknowledged,
      } = await cutPower({ type, cuts: 20, seed, plan, untilLoss: true });
      console.log(
        `${type} with ${JSON.stringify(plan)}: lost ${violations.length} things at cut ${needed}, ` +
          `after ${acknowledged} acknowledged changes; for one, ${violations[0]}`,
      );
      expect(violations).not.toEqual([]);
    },
    300_000,
  );
});
