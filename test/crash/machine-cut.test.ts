import { describe, expect, test } from 'vitest';
import { needs } from '../support/needs.ts';
import { amount, firstSeed, limitFor, sample, sampled } from '../support/sample.ts';
import { cutPower } from './power-cut.ts';

const lacking = needs('root', 'linux.uml', 'mkfs.btrfs', 'losetup', 'sqlite3');

// No call cuts the power of a disk with btrfs, so that of a machine is cut.
describe.skipIf(lacking)(`a power cut of a machine${lacking}`, () => {
  const cuts = amount({ some: 3, others: 6, all: 20 });

  test(
    'a power cut on btrfs loses nothing that was acknowledged',
    () =>
      sampled(async () => {
        const outcome = await cutPower({ type: 'btrfs', cuts, seed: firstSeed });
        const { acknowledged, violations } = outcome;
        console.log(
          `btrfs: ${outcome.cuts} power cuts (from seed ${firstSeed}), ${acknowledged} acknowledged changes; ` +
            `lost: ${violations.length}`,
        );
        expect(violations).toEqual([]);
        expect(outcome.cuts).toBe(cuts);
        expect(acknowledged).toBeGreaterThan(cuts);
      }),
    limitFor(cuts),
  );

  // If none were lost, the cuts above would prove nothing.
  test.each(sample([{ durability: 'metadata' }, { synchronous: 'normal' }] as const, { some: 1, others: 1 }))(
    'a power cut on btrfs with %j loses something',
    (plan) =>
      sampled(async () => {
        const cut = await cutPower({ type: 'btrfs', cuts: 20, seed: firstSeed, plan, untilLoss: true });
        console.log(
          `btrfs with ${JSON.stringify(plan)}: lost ${cut.violations.length} things at cut ${cut.cuts}, ` +
            `after ${cut.acknowledged} acknowledged changes; for one, ${cut.violations[0]}`,
        );
        expect(cut.violations).not.toEqual([]);
      }),
  );
});
