import { execFileSync } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect } from 'vitest';
import { OverlayDriver } from '../../src/index.ts';
import { makeDisk } from '../support/disk.ts';
import { test } from '../support/fixtures.ts';
import { needs } from '../support/needs.ts';

const lacking = needs('root', 'python3', 'mkfs.ext4', 'mkfs.xfs');

/** Shuts a filesystem down as it does itself when its disk is gone, without writing what is in its log. */
function shutDown(path: string): void {
  const script = `
import fcntl, os, struct, sys
fcntl.ioctl(os.open(sys.argv[1], os.O_RDONLY), 0x8004587d, struct.pack('I', 2))`;
  execFileSync('python3', ['-c', script, path]);
}

describe.skipIf(lacking)(`a disk that is gone${lacking}`, () => {
  test.for(['ext4', 'xfs'] as const)(
    'a store on %s is UNAVAILABLE once its disk is gone, and not said to be damaged',
    async (type, { undo }) => {
      const disk = makeDisk(type, 320);
      undo(() => disk.remove());
      const driver = await OverlayDriver.open(disk.root, { backups: false });
      undo(() => driver.close());
      const [base] = await driver.prepare('base');
      writeFileSync(join(base?.source ?? '', 'file'), 'text');
      await driver.commit('the base', 'base');
      // More rows than SQLite keeps in memory.
      const labels = { text: 'x'.repeat(4000) };
      await Promise.all(
        Array.from({ length: 900 }, (_, n) => driver.prepare(`work ${n}`, 'the base', { labels })),
      );
      shutDown(disk.path);
      const gone = { name: 'SnapshotError', code: 'UNAVAILABLE', message: expect.stringContaining('EIO') };
      await expect(driver.walk(() => {})).rejects.toMatchObject(gone);
      // What was written to the layer may be lost.
      await expect(driver.commit('more', 'work 7')).rejects.toMatchObject({
        name: 'SnapshotError',
        message: expect.stringMatching(/the disk (?:failed|that holds the store fails)|EIO/),
      });
      await expect(driver.prepare('other', 'the base')).rejects.toMatchObject(gone);
      await expect(driver.check()).rejects.toMatchObject(gone);
      await expect(OverlayDriver.open(disk.root)).rejects.toMatchObject(gone);
    },
  );

  test('a damaged database on a disk that works is DATA_LOSS', async ({ example }) => {
    writeFileSync(example.at('metadata.db'), Buffer.alloc(65_536, 'x'), { flag: 'r+' });
    await expect(OverlayDriver.open(example.root)).rejects.toMatchObject({ code: 'DATA_LOSS' });
  });
});
