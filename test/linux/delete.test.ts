import { execFileSync } from 'node:child_process';
import {
  chmodSync,
  chownSync,
  existsSync,
  mkdirSync,
  openSync,
  closeSync,
  readFileSync,
  readdirSync,
  renameSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { stat } from 'node:fs/promises';
import { join } from 'node:path';
import { outputFileSync } from 'fs-extra/esm';
import { describe, expect } from 'vitest';
import { deleteEntry } from '../../src/linux/delete.ts';
import { makeDisk } from '../support/disk.ts';
import { test as base } from '../support/fixtures.ts';
import { needs } from '../support/needs.ts';
import { makeOddTree, sh, treeCommands } from '../support/tree.ts';

const test = base.extend<{
  /** Deletes what has a name in `place`. */
  remove: (name: string | Buffer, signal?: AbortSignal) => Promise<void>;
}>({
  remove: async ({ place }, use) => {
    const fd = openSync(place, 'r');
    await use((name, signal) => deleteEntry(fd, Buffer.from(name), signal));
    closeSync(fd);
  },
});

/** Deletes what has a name in a directory. */
async function deleteIn(directory: string, name: string): Promise<void> {
  const fd = openSync(directory, 'r');
  try {
    await deleteEntry(fd, Buffer.from(name));
  } finally {
    closeSync(fd);
  }
}

test('deleteEntry() deletes a file, and a missing one is no error', async ({ place, remove }) => {
  const name = Buffer.from('\xff', 'latin1');
  writeFileSync(Buffer.concat([Buffer.from(`${place}/`), name]), '');
  await remove(name);
  expect(readdirSync(place)).toEqual([]);
  await remove(name);
});

const lackingTools = needs('root', ...treeCommands);

test.skipIf(lackingTools)(
  `deleteEntry() deletes a tree with every kind of file${lackingTools}`,
  async ({ place, target, remove }) => {
    makeOddTree(target);
    await remove('target');
    expect(readdirSync(place)).toEqual([]);
  },
);

test('deleteEntry() deletes directories of thousands of files, and paths longer than the kernel takes', async ({
  place,
  target,
  remove,
}) => {
  const name = 'n'.repeat(250);
  sh(
    `mkdir many many/more; (cd many; seq 3000 | xargs touch); (cd many/more; seq 3000 | xargs mkdir)
     for i in $(seq 20); do mkdir ${name}; cd -P ${name}; touch file; done`,
    target,
  );
  await remove('target');
  expect(readdirSync(place)).toEqual([]);
});

test('deleteEntry() deletes symbolic links, and nothing that they lead to', async ({
  place,
  target,
  remove,
}) => {
  outputFileSync(join(place, 'precious/file'), 'x');
  symlinkSync('../precious', join(target, 'link'));
  symlinkSync('precious', join(place, 'link'));
  await remove('link');
  await remove('target');
  expect(readdirSync(place)).toEqual(['precious']);
  expect(readFileSync(join(place, 'precious/file'), 'utf8')).toBe('x');
});

test('deleteEntry() does not follow a symbolic link that replaces a directory meanwhile', async ({
  place,
  target,
  remove,
}) => {
  outputFileSync(join(place, 'precious/file'), 'x');
  outputFileSync(join(target, 'directory/file'), '');
  // It has listed `directory` when it first lets others run, and enters it later.
  const deleting = remove('target');
  renameSync(join(target, 'directory'), join(place, 'away'));
  symlinkSync('../precious', join(target, 'directory'));
  await expect(deleting).rejects.toMatchObject({ code: expect.stringMatching(/^(ELOOP|ENOTDIR)$/) });
  expect(readFileSync(join(place, 'precious/file'), 'utf8')).toBe('x');
});

test('deleteEntry() throws the reason of its signal, and a second call deletes the rest', async ({
  place,
  target,
  remove,
}) => {
  sh('seq 500 | xargs touch; mkdir d', target);
  const reason = new Error('enough');
  await expect(remove('target', AbortSignal.abort(reason))).rejects.toBe(reason);
  expect(existsSync(target)).toBe(true);
  await remove('target');
  expect(readdirSync(place)).toEqual([]);
});

const lacking = needs('root');

describe.skipIf(lacking)(`deletion among mounts and other users${lacking}`, () => {
  test('deleteEntry() refuses a directory that something is mounted on, and deletes nothing in it', async ({
    target,
    remove,
    undo,
  }) => {
    outputFileSync(join(target, 'mounted/below'), '');
    sh('mount -t tmpfs none mounted; touch mounted/above', target);
    undo(() => sh('! mountpoint -q mounted || umount mounted', target));
    await expect(remove('target')).rejects.toMatchObject({
      code: 'FAILED_PRECONDITION',
      message: 'something is mounted on mounted',
    });
    expect(readdirSync(join(target, 'mounted'))).toEqual(['above']);
    sh('umount mounted', target);
    expect(readdirSync(join(target, 'mounted'))).toEqual(['below']);
  });

  test('deleteEntry() that fails deletes nothing in a directory that gets its descriptor next', async ({
    place,
    target,
    remove,
    undo,
  }) => {
    const busy = ['100', '300', '500', '700', '900'];
    sh(
      `mkdir ../precious; touch ../file; seq 1000 | xargs touch; (cd ../precious; seq 1000 | xargs touch)
       for name in ${busy.join(' ')}; do mount --bind ../file $name; done`,
      target,
    );
    undo(() => sh('for name in 100 300 500 700 900; do umount $name; done', target));
    await expect(remove('target')).rejects.toMatchObject({ code: 'EBUSY' });
    const fd = openSync(join(place, 'precious'), 'r');
    // What was queued for other threads before is done after these.
    await Promise.all(Array.from({ length: 200 }, () => stat(place)));
    closeSync(fd);
    expect(readdirSync(join(place, 'precious'))).toHaveLength(1000);
  });

  test('deleteEntry() of an ordinary user deletes directories that their owner may not read', async ({
    place,
    target,
    remove,
    undo,
  }) => {
    // As overlayfs leaves them.
    const work = join(target, 'work');
    const inner = join(work, 'work');
    mkdirSync(work, { mode: 0o755 });
    mkdirSync(inner);
    writeFileSync(join(inner, 'file'), '');
    execFileSync('chown', ['-R', '65534:65534', place]);
    chmodSync(inner, 0);
    chmodSync(work, 0o500);
    chownSync(place, 65_534, 65_534);
    process.seteuid?.(65_534);
    undo(() => process.seteuid?.(0));
    await remove('target');
    process.seteuid?.(0);
    expect(readdirSync(place)).toEqual([]);
  });
});

const lackingFlags = needs('root', 'chattr', 'mkfs.ext4', 'mkfs.xfs', 'mkfs.btrfs');

describe.skipIf(lackingFlags)(`deletion of what flags protect${lackingFlags}`, () => {
  test.for(['ext4', 'xfs', 'btrfs'] as const)(
    'deleteEntry() on %s deletes files and directories that are immutable or append-only',
    async (type, { undo }) => {
      const disk = makeDisk(type, 512);
      undo(() => disk.remove());
      sh(
        `mkdir -p tree/immutable/inner tree/append; touch tree/a tree/b tree/immutable/c tree/append/d; ln tree/a tree/a-again
         seq -f tree/immutable/many-%.0f 100 | xargs touch; ln -s a tree/immutable/link
         chattr +i tree/a tree/immutable/c tree/immutable/inner tree/immutable/many-50; chattr +a tree/b
         chattr +i tree/immutable; chattr +a tree/append; chattr +i tree`,
        disk.path,
      );
      await deleteIn(disk.path, 'tree');
      expect(readdirSync(disk.path)).not.toContain('tree');
    },
  );

  test('deleteEntry() leaves a file with other names elsewhere as it was, and the directory that it deletes from', async ({
    undo,
  }) => {
    const disk = makeDisk('ext4', 64);
    undo(() => {
      sh('chattr -i . elsewhere', disk.path);
      disk.remove();
    });
    sh('mkdir tree; echo x > tree/file; ln tree/file elsewhere; chattr +i elsewhere', disk.path);
    await deleteIn(disk.path, 'tree');
    expect(sh('lsattr elsewhere', disk.path)).toMatch(/^-*i/);
    sh('mkdir other; touch other/file; chattr +i .', disk.path);
    await expect(deleteIn(disk.path, 'other')).rejects.toMatchObject({ code: 'PERMISSION_DENIED' });
    expect(sh('lsattr -d .', disk.path)).toMatch(/^-*i/);
  });

  test('deleteEntry() deletes read-only subvolumes of btrfs, also in one another', async ({ undo }) => {
    const disk = makeDisk('btrfs', 512);
    undo(() => disk.remove());
    sh(
      `mkdir tree; cd tree; btrfs -q subvolume create one; btrfs -q subvolume create one/two; mkdir one/two/d; touch one/two/d/file one/file
       btrfs property set one/two ro true; btrfs property set one ro true; btrfs -q subvolume snapshot -r one three`,
      disk.path,
    );
    await deleteIn(disk.path, 'tree');
    expect(readdirSync(disk.path)).not.toContain('tree');
  });
});
