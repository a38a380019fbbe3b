import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, describe, test } from 'vitest';
import { OverlayDriver, checkStore } from '../../src/index.ts';
import { filesystemOf } from '../../src/linux/filesystem.ts';
import { makeDisk } from '../support/disk.ts';
import { isRoot } from '../support/needs.ts';
import { assertWhole } from '../support/store.ts';
import { missing } from '../support/tree.ts';
import { cutPower } from './power-cut.ts';

const lacking = [
  ...(isRoot ? [] : ['root']),
  ...missing('mkfs.ext4', 'e2fsck', 'mkfs.xfs', 'xfs_io', 'unshare', 'sqlite3'),
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

  test('takes no directory back on ext4 without a journal', async () => {
    const disk = makeDisk('ext4', 64, { options: ['-O', '^has_journal'] });
    try {
      expect(filesystemOf(disk.root).ordered).toBe(false);
      await using driver = await OverlayDriver.open(disk.root);
      await driver.prepare('in work');
      writeFileSync(join((await driver.stat('in work')).directory ?? '', 'fs/file'), 'contents');
      await driver.commit('base', 'in work');
      await driver.view('view of nothing');
      for (const key of ['a', 'b', 'c']) await driver.prepare(key, 'base');
      await Promise.all(['d', 'e', 'f'].map((key) => driver.prepare(key)));
      await driver.transaction((tx) => {
        tx.prepare('g', 'base');
        tx.prepare('h');
      });
      const left = disk.cut();
      try {
        assertWhole(left.root);
        expect((await checkStore(left.root)).findings).toEqual([]);
        await using again = await OverlayDriver.open(left.root);
        for (const key of ['view of nothing', 'a', 'b', 'c', 'd', 'e', 'f', 'g', 'h'])
          await again.mounts(key);
        expect(readFileSync(join(left.root, 'snapshots/1/fs/file'), 'utf8')).toBe('contents');
      } finally {
        left.remove();
      }
    } finally {
      disk.remove();
    }
  });

  test.each(['ext4', 'xfs'] as const)('is prepared for by one sync for all directories on %s', (type) => {
    const disk = makeDisk(type, 320);
    try {
      expect(filesystemOf(disk.root).ordered).toBe(true);
    } finally {
      disk.remove();
    }
  });

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
