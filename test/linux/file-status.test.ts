import {
  appendFileSync,
  chmodSync,
  chownSync,
  closeSync,
  linkSync,
  lstatSync,
  mkdirSync,
  openSync,
  readdirSync,
  truncateSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { expect } from 'vitest';
import { AT_FDCWD, cString } from '../../src/linux/foreign.ts';
import { FileStatus, isDirectory, isRegular, isWhiteout } from '../../src/linux/file-status.ts';
import { makeDisk } from '../support/disk.ts';
import { test as base } from '../support/fixtures.ts';
import { needs } from '../support/needs.ts';
import { makeOddTree, sh, treeCommands } from '../support/tree.ts';

const test = base.extend<{
  /** The status of a file in `place`; `undefined` if it is missing. */
  status: (name: string | Buffer) => FileStatus | undefined;
}>({
  status: async ({ place }, use) => {
    const fd = openSync(place, 'r');
    await use((name) => {
      const status = new FileStatus();
      return status.read(fd, cString(name)) ? status : undefined;
    });
    closeSync(fd);
  },
});

const lackingTools = needs('root', ...treeCommands);

test.skipIf(lackingTools)(
  `FileStatus reads what lstat() does of every kind of file${lackingTools}`,
  ({ place, status }) => {
    makeOddTree(place);
    sh('mknod large-numbers b 4000 1000000; truncate -s 5T huge; chown 4000000000:3000000000 huge', place);
    for (const bytes of readdirSync(place, { encoding: 'buffer' })) {
      const found = status(bytes);
      const expected = lstatSync(Buffer.concat([Buffer.from(`${place}/`), bytes]), { bigint: true });
      const name = bytes.toString('latin1');
      const seconds = expected.mtimeNs / 1_000_000_000n - (expected.mtimeNs % 1_000_000_000n < 0n ? 1n : 0n);
      expect({
        name,
        links: found?.links,
        uid: found?.uid,
        gid: found?.gid,
        mode: found?.mode,
        inode: found?.inode,
        size: found?.size,
        blocks: found?.blocks,
        modified: found?.modified,
      }).toEqual({
        name,
        links: Number(expected.nlink),
        uid: Number(expected.uid),
        gid: Number(expected.gid),
        mode: Number(expected.mode),
        inode: expected.ino,
        size: Number(expected.size),
        blocks: Number(expected.blocks),
        modified: `${seconds}.${expected.mtimeNs - seconds * 1_000_000_000n}`,
      });
    }
    expect(status('large-numbers')?.device).toEqual({ major: 4000, minor: 1_000_000 });
    expect(status('size-0')?.modified).toBe('-2.1');
  },
);

test.skipIf(lackingTools)(
  `isWhiteout() is true for a character device 0:0 alone${lackingTools}`,
  ({ place, status }) => {
    makeOddTree(place);
    sh('mknod zero-block b 0 0; mknod null c 1 3', place);
    const whiteouts = readdirSync(place).filter((name) => isWhiteout(status(name) ?? new FileStatus()));
    expect(whiteouts.toSorted()).toEqual(['whiteout', 'whiteout-again']);
  },
);

test('FileStatus does not follow symbolic links, and finds nothing under a missing name', ({
  place,
  status,
}) => {
  sh('mkdir directory; touch file; ln -s directory link', place);
  expect(isDirectory(status('directory')?.mode ?? 0)).toBe(true);
  expect(isDirectory(status('link')?.mode ?? 0)).toBe(false);
  expect(isRegular(status('file')?.mode ?? 0)).toBe(true);
  expect(isRegular(status('link')?.mode ?? 0)).toBe(false);
  expect(status('missing')).toBeUndefined();
  expect(() => status('file/below')).toThrow(/ENOTDIR/);
});

const changes: Readonly<Record<string, (file: string) => void>> = {
  'it is written to and gets its times back': (file) => {
    const { atime, mtime } = lstatSync(file);
    writeFileSync(file, 'other');
    utimesSync(file, atime, mtime);
  },
  'it grows': (file) => appendFileSync(file, 'x'),
  'it is cut short and grows again': (file) => {
    truncateSync(file, 0);
    truncateSync(file, 5);
  },
  'it gets another mode': (file) => chmodSync(file, 0o600),
  'it gets another link': (file) => linkSync(file, `${file}-${performance.now()}`),
  'it gets the owner that it has': (file) =>
    chownSync(file, process.geteuid?.() ?? 0, process.getegid?.() ?? 0),
};

test.for(Object.entries(changes))(
  'the version of a file differs after %s',
  ([, change], { place, status }) => {
    writeFileSync(join(place, 'file'), 'first');
    const before = status('file')?.version;
    expect(status('file')?.version).toEqual(before);
    // The clock of the kernel, by which changes are told apart, does not move at every instant.
    while (status('file')?.version.equals(before ?? Buffer.alloc(0)) === true) change(join(place, 'file'));
    expect(status('file')?.version).not.toEqual(before);
  },
);

test('the identity of a file lasts as long as the file, under any name', ({ place, status }) => {
  sh('echo 1 > a; echo 1 > b; ln a c', place);
  const identity = status('a')?.identity ?? new Uint32Array();
  sh('echo more >> a; chmod 600 a', place);
  expect(status('a')?.is(identity)).toBe(true);
  expect(status('c')?.is(identity)).toBe(true);
  expect(status('b')?.is(identity)).toBe(false);
});

const lacking = needs('root');

test.skipIf(lacking)(
  `isMountRoot is true for the root of a mount alone${lacking}`,
  ({ place, status, undo }) => {
    mkdirSync(join(place, 'bound'));
    expect(status('bound')?.isMountRoot).toBe(false);
    sh('mount --bind bound bound; mkdir bound/inner', place);
    undo(() => sh('umount bound', place));
    expect(status('bound')?.isMountRoot).toBe(true);
    expect(status('bound/inner')?.isMountRoot).toBe(false);
  },
);

test.skipIf(lacking)(
  'a file of 2^53 bytes, which numbers do not tell from the next, is refused',
  ({ undo }) => {
    const disk = makeDisk('tmpfs', 1);
    undo(() => disk.remove());
    const read = (): number => {
      const status = new FileStatus();
      status.read(AT_FDCWD, cString(join(disk.path, 'huge')));
      return status.size;
    };
    writeFileSync(join(disk.path, 'huge'), '');
    truncateSync(join(disk.path, 'huge'), Number.MAX_SAFE_INTEGER);
    expect(read()).toBe(Number.MAX_SAFE_INTEGER);
    sh('truncate -s 8P huge', disk.path);
    expect(read).toThrow(expect.objectContaining({ name: 'SnapshotError', code: 'UNIMPLEMENTED' }));
  },
);
