import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { OverlayDriver, checkStore } from '../../src/index.ts';
import { filesystemOf } from '../../src/linux/filesystem.ts';
import { makeDisk } from '../support/disk.ts';
import { needs } from '../support/needs.ts';
import { amount, firstSeed, limitFor, sample, sampled } from '../support/sample.ts';
import { assertWhole } from '../support/store.ts';
import { cutPower } from './power-cut.ts';

const lacking = needs('root', 'mkfs.ext4', 'e2fsck', 'mkfs.xfs', 'xfs_io', 'unshare', 'losetup', 'sqlite3');

describe.skipIf(lacking)(`a power cut${lacking}`, () => {
  const cuts = amount({ some: 3, others: 6, all: 20 });

  test.each(['ext4', 'xfs'] as const)(
    'a power cut on %s loses nothing that was acknowledged',
    (type) =>
      sampled(async () => {
        const outcome = await cutPower({ type, cuts, seed: firstSeed });
        const { acknowledged, inReusedWal, violations } = outcome;
        console.log(
          `${type}: ${outcome.cuts} power cuts (from seed ${firstSeed}), ${acknowledged} acknowledged changes, ` +
            `${inReusedWal} of them in a WAL that was used again; lost: ${violations.length}`,
        );
        expect(violations).toEqual([]);
        expect(outcome.cuts).toBe(cuts);
        expect(acknowledged).toBeGreaterThan(cuts);
        // Of a few cuts each may come before the WAL is used again.
        if (cuts >= 20) expect(inReusedWal).toBeGreaterThan(acknowledged / 10);
      }),
    limitFor(cuts),
  );

  test('a power cut on ext4 without a journal loses no directory', async () => {
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

  test.each(['ext4', 'xfs'] as const)('one sync makes all directories durable on %s', (type) => {
    const disk = makeDisk(type, 320);
    try {
      expect(filesystemOf(disk.root).ordered).toBe(true);
    } finally {
      disk.remove();
    }
  });

  // If none were lost, the cuts above would prove nothing.
  test.each(
    sample(
      [
        ['ext4', { durability: 'metadata' }],
        ['xfs', { durability: 'metadata' }],
        ['ext4', { synchronous: 'normal' }],
        ['xfs', { synchronous: 'normal' }],
      ] as const,
      { some: 1, others: 3 },
    ),
  )('a power cut on %s with %j loses something', (type, plan) =>
    sampled(async () => {
      const cut = await cutPower({ type, cuts: 20, seed: firstSeed, plan, untilLoss: true });
      console.log(
        `${type} with ${JSON.stringify(plan)}: lost ${cut.violations.length} things at cut ${cut.cuts}, ` +
          `after ${cut.acknowledged} acknowledged changes; for one, ${cut.violations[0]}`,
      );
      expect(cut.violations).not.toEqual([]);
    }),
  );
});
