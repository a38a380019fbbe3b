import { readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { removeSync } from 'fs-extra/esm';
import { describe, expect, test } from 'vitest';
import { OverlayDriver, SnapshotError } from '../../src/index.ts';
import { type Disk, makeDisk } from '../support/disk.ts';
import { needs } from '../support/needs.ts';
import { assertWhole } from '../support/store.ts';
import { describeTree, sh } from '../support/tree.ts';

const lacking = needs('root', 'mkfs.ext4', 'mkfs.xfs', 'mkfs.btrfs', 'sqlite3', 'getfattr');

/** Disks, and how each of them is filled to the last. */
const disks = [
  ['ext4', 24, {}, 'cat /dev/zero'],
  ['xfs', 320, {}, 'cat /dev/zero'],
  ['btrfs', 128, {}, 'cat /dev/zero'],
  ['tmpfs', 8, {}, 'cat /dev/zero'],
  ['ext4', 24, { inodes: 160 }, 'files'],
  ['tmpfs', 8, { inodes: 120 }, 'files'],
] as const;

describe.skipIf(lacking)(`a full disk${lacking}`, () => {
  test.each(disks)(
    'a store survives on a full %s of %i MiB %j, filled with %s',
    async (type, mebibytes, options, filling) => {
      const disk = makeDisk(type, mebibytes, options);
      const filler = join(disk.path, 'filler');
      const fill = (): void =>
        void sh(
          filling === 'files'
            ? `mkdir -p '${filler}'; for i in $(seq 1000); do touch '${filler}'/$i 2>/dev/null || break; done`
            : `cat /dev/zero > '${filler}' 2>/dev/null || true; sync -f . || true; cat /dev/zero >> '${filler}' 2>/dev/null || true`,
          disk.path,
        );
      let driver: OverlayDriver | undefined;
      try {
        driver = await OverlayDriver.open(disk.root);
        await survive(driver, disk, filler, fill);
        await driver.close();
        assertWhole(disk.root);
      } finally {
        await driver?.close();
        disk.remove();
      }
    },
  );
});

/** Everything that has to hold from when the disk is full until there is room again. */
async function survive(driver: OverlayDriver, disk: Disk, filler: string, fill: () => void): Promise<void> {
  const layer = async (key: string): Promise<string> => `${(await driver.stat(key)).directory}/fs`;
  await driver.prepare('making base');
  writeFileSync(join(await layer('making base'), 'file'), 'base');
  await driver.commit('base', 'making base');
  for (const key of ['k', 'spare']) {
    await driver.prepare(key, 'base');
    // More than is left when the disk is full, in bytes and in files.
    sh(
      'head -c 1500000 /dev/urandom > large; mkdir d; for i in $(seq 30); do echo $i > d/$i; done',
      await layer(key),
    );
  }
  const before = describeTree(await layer('k'));
  fill();

  const rejected = (error: unknown): void => {
    expect(error).toBeInstanceOf(SnapshotError);
    expect(error).toMatchObject({ code: 'RESOURCE_EXHAUSTED' });
  };
  const refused = async (attempt: Promise<unknown>): Promise<void> => {
    rejected(
      await attempt.then(
        () => undefined,
        (error: unknown) => error,
      ),
    );
  };
  // On btrfs a copy that shares its blocks may still find room.
  if (disk.type === 'btrfs') await driver.checkpoint('copy', 'k').then(() => driver.delete('copy'), rejected);
  else await refused(driver.checkpoint('copy', 'k'));
  expect(readdirSync(join(disk.root, 'snapshots')).toSorted()).toEqual(['1', '2', '3']);
  // There may be room for a few.
  const labels = Object.fromEntries(Array.from({ length: 20 }, (_, i) => [`${i}`, 'x'.repeat(4000)]));
  const failures: unknown[] = [];
  let made = 0;
  for (let from = 0; failures.length === 0 && from < 200; from += 20) {
    const prepared = await Promise.allSettled(
      Array.from({ length: 20 }, (_, i) => driver.prepare(`more ${from + i}`, 'base', { labels })),
    );
    for (const outcome of prepared) {
      if (outcome.status === 'fulfilled') made += 1;
      else failures.push(outcome.reason);
    }
  }
  expect(failures.length).toBeGreaterThan(0);
  for (const failure of failures) rejected(failure);

  const open: string[] = [];
  for await (const { name } of driver.snapshots()) open.push(name);
  expect(open).toHaveLength(3 + made);
  expect((await driver.stat('k')).kind).toBe('active');
  expect((await driver.mounts('k'))[0]?.type).toBe('overlay');
  expect((await driver.usage('k')).inodes).toBe(33);
  expect(describeTree(await layer('k'))).toBe(before);

  expect(await driver.remove('spare')).toEqual({});
  for (const name of open) if (name.startsWith('more')) await driver.remove(name);
  await driver.cleanup();
  removeSync(filler);
  await driver.checkpoint('copy', 'k');
  expect(describeTree(await layer('copy'))).toBe(before);
  await driver.commit('n', 'k');
  expect(describeTree(await layer('n'))).toBe(before);
  await driver.delete('copy');
}
