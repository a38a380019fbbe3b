import { closeSync, linkSync, openSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect } from 'vitest';
import { fileKey } from '../../src/linux/file-key.ts';
import { FileStatus } from '../../src/linux/file-status.ts';
import { makeDisk } from '../support/disk.ts';
import { test } from '../support/fixtures.ts';
import { needs } from '../support/needs.ts';

function keyOf(path: string): string {
  const fd = openSync(path, 'r');
  try {
    return fileKey(fd, new FileStatus());
  } finally {
    closeSync(fd);
  }
}

const lacking = needs('root', 'mkfs.ext4', 'mkfs.xfs', 'mkfs.btrfs');

describe.skipIf(lacking)(`keys of files${lacking}`, () => {
  test.for(['ext4', 'xfs', 'btrfs', 'tmpfs'] as const)(
    'fileKey() on %s is the same for each name of a file, and for no file that gets its inode number next',
    (type, { undo }) => {
      const disk = makeDisk(type, 512);
      undo(() => disk.remove());
      const [one, other] = [join(disk.path, 'one'), join(disk.path, 'other')];
      const keys = new Set<string>();
      const inodes = new Set<number>();
      for (let round = 0; round < 500; round += 1) {
        writeFileSync(one, '');
        linkSync(one, other);
        expect(keyOf(other)).toBe(keyOf(one));
        keys.add(keyOf(one));
        inodes.add(statSync(one).ino);
        rmSync(one);
        rmSync(other);
      }
      expect(keys.size).toBe(500);
      // Otherwise this shows nothing.
      if (type === 'ext4' || type === 'xfs') expect(inodes.size).toBeLessThan(100);
    },
  );
});
