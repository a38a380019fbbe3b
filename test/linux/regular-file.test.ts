import { closeSync, constants, openSync, readFileSync, readSync, renameSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect } from 'vitest';
import { OverlayDriver } from '../../src/index.ts';
import { copyLayer } from '../../src/layers/copy.ts';
import { measure, measureNow } from '../../src/layers/seal.ts';
import { isGone } from '../../src/linux/errno.ts';
import { openDirectory } from '../../src/linux/file-calls.ts';
import { FileStatus } from '../../src/linux/file-status.ts';
import { AT_FDCWD, O_PATH, cString } from '../../src/linux/foreign.ts';
import { openRegular, openRegularOrNew } from '../../src/linux/regular-file.ts';
import { type TreeEntry, type TreeWalk, walkTree } from '../../src/linux/tree-walk.ts';
import { test } from '../support/fixtures.ts';
import { changesOf, commitLayer, layerOf } from '../support/layers.ts';
import { needs } from '../support/needs.ts';
import { startProcess } from '../support/process.ts';
import { sh } from '../support/tree.ts';

const lacking = needs('root');

/** What can be in the place of a file that was listed: each makes it at `other`. */
const others: Readonly<Record<string, string>> = {
  'a fifo': 'mkfifo other',
  'a socket': `python3 -c 'import socket; socket.socket(socket.AF_UNIX).bind("other")'`,
  'an endless device': 'mknod other c 1 5',
  'a device without a driver': 'mknod other c 60 0',
  'a symbolic link to a device': 'ln -s /dev/zero other',
  'a directory': 'mkdir other',
};

/** A walk in which another file takes the place of `file` once it was looked at. */
function* replacing(directory: string): TreeWalk {
  for (const entry of walkTree(directory)) {
    if (entry?.text === 'file') {
      renameSync(join(directory, 'file'), join(directory, '..', 'listed'));
      renameSync(join(directory, '..', 'other'), join(directory, 'file'));
    }
    yield entry;
  }
}

/** The entry of a walk for a file that was listed at one path, and is opened at another. */
function entryOf(listed: string, opened = listed): Pick<TreeEntry, 'hold' | 'path' | 'status'> {
  const status = new FileStatus();
  status.read(AT_FDCWD, cString(listed));
  const hold = (): number => openSync(opened, O_PATH | constants.O_NOFOLLOW);
  return { path: Buffer.from(opened), status, hold };
}

test('openRegular() opens the file that was listed, by any of its names, and no other', ({ place }) => {
  sh('echo data > file; ln file link; echo data > other', place);
  const [file, link, other] = [join(place, 'file'), join(place, 'link'), join(place, 'other')];
  const status = new FileStatus();
  const fd = openRegular(entryOf(file, link), status);
  expect([readSync(fd, Buffer.alloc(10)), status.size]).toEqual([5, 5]);
  closeSync(fd);
  expect(() => openRegular(entryOf(file, other), status)).toThrow(
    expect.objectContaining({ code: 'ESTALE' }),
  );
  closeSync(openRegularOrNew(entryOf(file, other), status));
});

describe.skipIf(lacking)(`a file that is swapped between the look at it and its opening${lacking}`, () => {
  test.for(Object.keys(others))(
    'openRegular() does not open %s, and says that the file is gone',
    (what, { place }) => {
      sh(others[what] ?? '', place);
      const entry = entryOf(join(place, 'other'));
      for (const open of [openRegular, openRegularOrNew]) {
        expect(() => open(entry, new FileStatus())).toThrow(expect.toSatisfy(isGone));
      }
    },
  );

  test.for(Object.keys(others))('a digest of contents does not read %s', async (what, { place }) => {
    const directory = join(place, 'tree');
    for (const size of [1, 1_000_000]) {
      sh(`rm -rf tree listed; mkdir tree; head -c ${size} /dev/zero > tree/file; ${others[what]}`, place);
      await measure(replacing(directory), { contents: true });
    }
  });

  test('measureNow() does not read it either', ({ place }) => {
    const directory = join(place, 'tree');
    sh('mkdir tree; echo x > tree/file; mknod other c 1 5', place);
    expect(() => measureNow(replacing(directory), { contents: true })).toThrow(
      expect.objectContaining({ code: 'ESTALE' }),
    );
  });

  test('seal(), checkpoint() and diff() end while files, fifos and devices take turns under one name', async ({
    place,
  }) => {
    await using driver = await OverlayDriver.open(join(place, 'swapped'), {
      seal: 'content',
      backups: false,
    });
    await commitLayer(driver, 'base', null, 'echo old > file');
    await driver.prepare('k');
    const directory = await layerOf(driver, 'k');
    const swapping = await startProcess('swapping', 'python3', [
      '-uc',
      `
import os, stat, sys
os.chdir(sys.argv[1])
print('swapping')
while True:
    for make in (
        lambda: os.mkfifo('../other'),
        lambda: os.mknod('../other', stat.S_IFCHR | 0o600, os.makedev(1, 5)),
        lambda: open('../other', 'w').write('new' * 1000),
        lambda: os.symlink('/dev/zero', '../other'),
        lambda: open('../other', 'w').write('newer'),
    ):
        make()
        os.rename('../other', 'file')`,
      directory,
    ]);
    try {
      for (let round = 0; round < 20; round += 1) {
        await driver.seal('k');
        await driver.checkpoint(`n${round}`, 'k');
        await changesOf(driver, 'k', { against: 'base', contents: true });
      }
    } finally {
      await swapping.kill();
    }
  });
});

test('a copy has the file that has replaced the one that was listed, and does not take it for that', async ({
  place,
}) => {
  const directory = join(place, 'tree');
  // The walk comes to `file` before it comes to `later`, its other name.
  sh('mkdir tree; echo old > tree/file; ln tree/file tree/later; echo new > other', place);
  const target = openDirectory(cString(place));
  await copyLayer(replacing(directory), target);
  closeSync(target);
  expect(['file', 'later'].map((name) => readFileSync(join(place, 'fs', name), 'utf8'))).toEqual([
    'new\n',
    'old\n',
  ]);
});
