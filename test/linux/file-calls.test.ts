import {
  closeSync,
  fstatSync,
  ftruncateSync,
  lstatSync,
  mkdirSync,
  openSync,
  readFileSync,
  readdirSync,
  symlinkSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { join } from 'node:path';
import { outputFileSync } from 'fs-extra/esm';
import { describe, expect } from 'vitest';
import {
  cloneFile,
  copyRange,
  hasChanged,
  makeNode,
  nextData,
  nextHole,
  openDirectory,
  openDirectoryBeneath,
  openWithoutMounts,
  setTimes,
  supportsDType,
  tryLock,
} from '../../src/linux/file-calls.ts';
import { cString } from '../../src/linux/foreign.ts';
import { FileStatus } from '../../src/linux/file-status.ts';
import { fdPath } from '../../src/linux/tree-walk.ts';
import { test as base } from '../support/fixtures.ts';
import { needs } from '../support/needs.ts';
import { sh } from '../support/tree.ts';

const test = base.extend<{
  /** Opens a file in `place` until the test ends. */
  open: (name: string, flags?: string) => number;
  /** Keeps a descriptor until the test ends. */
  keep: (fd: number) => number;
}>({
  keep: async ({ place: _before }, use) => {
    const kept: number[] = [];
    await use((fd) => {
      kept.push(fd);
      return fd;
    });
    for (const fd of kept) closeSync(fd);
  },
  open: async ({ place, keep }, use) => {
    await use((name, flags = 'r') => keep(openSync(join(place, name), flags)));
  },
});

describe('opening directories', () => {
  test('openDirectory() refuses a symbolic link in any part of the path', ({ place, keep }) => {
    mkdirSync(join(place, 'a/b'), { recursive: true });
    symlinkSync('a', join(place, 'link'));
    keep(openDirectory(cString(join(place, 'a/b'))));
    expect(() => openDirectory(cString(join(place, 'link/b')))).toThrow(/ELOOP/);
    expect(() => openDirectory(cString(join(place, 'link')))).toThrow(/ELOOP|ENOTDIR/);
  });

  test('openDirectoryBeneath() opens nothing outside of the directory', ({ place, open, keep }) => {
    mkdirSync(join(place, 'root/a/b'), { recursive: true });
    symlinkSync('a', join(place, 'root/link'));
    const root = open('root');
    expect(readdirSync(fdPath(keep(openDirectoryBeneath(root, cString('a/b/..')))))).toEqual(['b']);
    for (const path of ['..', 'a/../..', place]) {
      expect(() => openDirectoryBeneath(root, cString(path)), path).toThrow(/EXDEV/);
    }
    expect(() => openDirectoryBeneath(root, cString('link/b'))).toThrow(/ELOOP/);
    expect(() => openDirectoryBeneath(root, cString('link'))).toThrow(/ELOOP|ENOTDIR/);
  });

  const lacking = needs('root');

  test.skipIf(lacking)(
    `openDirectoryBeneath() enters no mount, not even of the same filesystem, and openWithoutMounts() sees below it${lacking}`,
    ({ place, open, keep, undo }) => {
      outputFileSync(join(place, 'root/mounted/below'), '');
      outputFileSync(join(place, 'other/above'), '');
      sh('mount --bind other root/mounted', place);
      undo(() => sh('umount root/mounted', place));
      const root = open('root');
      expect(readdirSync(join(place, 'root/mounted'))).toEqual(['above']);
      expect(() => openDirectoryBeneath(root, cString('mounted'))).toThrow(/EXDEV/);
      const clone = keep(openWithoutMounts(root) ?? -1);
      expect(readdirSync(join(fdPath(clone), 'mounted'))).toEqual(['below']);
    },
  );
});

describe('data of files', () => {
  test('nextData() and nextHole() find the parts of a sparse file', ({ open }) => {
    const fd = open('sparse', 'w+');
    const block = 1 << 20;
    writeSync(fd, 'data', 3 * block);
    ftruncateSync(fd, 8 * block);
    expect(nextData(fd, 0)).toBe(3 * block);
    expect(nextData(fd, 3 * block + 1)).toBe(3 * block + 1);
    const hole = nextHole(fd, 3 * block) ?? -1;
    expect(hole).toBeGreaterThan(3 * block);
    expect(hole).toBeLessThan(4 * block);
    expect(nextData(fd, hole)).toBeUndefined();
    expect(nextHole(fd, hole)).toBe(hole);
    expect(nextData(fd, 8 * block)).toBeUndefined();
    expect(nextHole(fd, 8 * block)).toBeUndefined();
  });

  test('copyRange() copies to the same offset, and nothing at the end', async ({ place, open }) => {
    writeFileSync(join(place, 'from'), '0123456789');
    const [from, to] = [open('from'), open('to', 'w+')];
    expect(await copyRange(from, to, 4, 3)).toBe(3);
    expect(readFileSync(join(place, 'to'), 'latin1')).toBe(`${'\0'.repeat(4)}456`);
    expect(await copyRange(from, to, 7, 100)).toBe(3);
    expect(await copyRange(from, to, 10, 100)).toBe(0);
    expect(readFileSync(join(place, 'to'), 'latin1')).toBe(`${'\0'.repeat(4)}456789`);
    await expect(copyRange(from, from, 0, 5)).rejects.toMatchObject({
      code: expect.stringMatching(/EBADF|EINVAL/),
    });
  });

  test('cloneFile() shares the data, or reports that the filesystem cannot do that', async ({
    place,
    open,
  }) => {
    writeFileSync(join(place, 'from'), 'data');
    const cloned = await cloneFile(open('from'), open('to', 'w+'));
    expect(readFileSync(join(place, 'to'), 'utf8')).toBe(cloned ? 'data' : '');
    await expect(cloneFile(-1, -1)).rejects.toMatchObject({ code: 'EBADF' });
  });
});

describe('files and their attributes', () => {
  test('setTimes() sets the times of a symbolic link itself, to the nanosecond and before 1970', ({
    place,
  }) => {
    writeFileSync(join(place, 'file'), '');
    symlinkSync('file', join(place, 'link'));
    sh("touch -d '1969-12-31 23:59:57.123456789' file", place);
    const status = new FileStatus();
    const directory = openSync(place, 'r');
    status.read(directory, cString('file'));
    closeSync(directory);
    setTimes(cString(join(place, 'link')), status.times);
    expect(lstatSync(join(place, 'link'), { bigint: true }).mtimeNs).toBe(-2_876_543_211n);
    expect(lstatSync(join(place, 'link'), { bigint: true }).atimeNs).toBe(-2_876_543_211n);
  });

  const lacking = needs('root');

  test.skipIf(lacking)(`makeNode() makes fifos, sockets and devices of any number${lacking}`, ({ place }) => {
    const none = { major: 0, minor: 0 };
    makeNode(cString(join(place, 'fifo')), 0o010000, none);
    makeNode(cString(join(place, 'socket')), 0o140000, none);
    makeNode(cString(join(place, 'device')), 0o060000, { major: 4095, minor: 703_710 });
    makeNode(cString(join(place, 'whiteout')), 0o020000, none);
    expect(sh("stat -c '%n %F %Hr:%Lr' *", place).trim().split('\n')).toEqual([
      'device block special file 4095:703710',
      'fifo fifo 0:0',
      'socket socket 0:0',
      'whiteout character special file 0:0',
    ]);
  });

  test('supportsDType() is true on a filesystem that overlays can use', ({ open }) => {
    expect(supportsDType(open('.'))).toBe(true);
  });
});

test('tryLock() takes a lock that lasts until the descriptor is closed', ({ place }) => {
  const [first, second] = [openSync(place, 'r'), openSync(place, 'r')];
  try {
    expect(tryLock(first)).toBe(true);
    expect(tryLock(first)).toBe(true);
    expect(tryLock(second)).toBe(false);
  } finally {
    closeSync(first);
  }
  expect(tryLock(second)).toBe(true);
  closeSync(second);
  expect(() => fstatSync(second)).toThrow(/EBADF/);
  expect(() => tryLock(second)).toThrow(/EBADF/);
});

const lacking = needs('root');

test.skipIf(lacking)(
  `hasChanged() is true once after each mount and unmount${lacking}`,
  ({ place, target, keep, undo }) => {
    const table = keep(openSync('/proc/self/mountinfo', 'r'));
    hasChanged(table);
    expect(hasChanged(table)).toBe(false);
    sh('mount -t tmpfs none .', target);
    undo(() => sh('! mountpoint -q target || umount target', place));
    expect(hasChanged(table)).toBe(true);
    expect(hasChanged(table)).toBe(false);
    sh('umount target', place);
    expect(hasChanged(table)).toBe(true);
  },
);
