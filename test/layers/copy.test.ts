import { spawnSync } from 'node:child_process';
import { mkdirSync, readFileSync, statSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect } from 'vitest';
import { OverlayDriver, type Progress } from '../../src/index.ts';
import { makeDisk } from '../support/disk.ts';
import { test } from '../support/fixtures.ts';
import { commitLayer, idsOnDisk, layerOf } from '../support/layers.ts';
import { mount, unmount, withMount } from '../support/mount.ts';
import { needs } from '../support/needs.ts';
import { startProcess } from '../support/process.ts';
import { assertWhole } from '../support/store.ts';
import { describeTree, makeOddTree, sh, treeCommands } from '../support/tree.ts';

const lacking = needs('root', ...treeCommands, 'mkfs.xfs', 'mkfs.btrfs');

describe.skipIf(lacking)(`an exact copy${lacking}`, () => {
  test.for(['ext4', 'xfs', 'btrfs'] as const)(
    'checkpoint() on %s copies one of every kind of file exactly',
    async (type, { undo }) => {
      const disk = makeDisk(type, 512);
      undo(() => disk.remove());
      await using driver = await OverlayDriver.open(disk.root, { seal: 'content', backups: false });
      // It holds whiteouts, which a base must not.
      await commitLayer(driver, 'base', null, '');
      await driver.prepare('k', 'base');
      makeOddTree(await layerOf(driver, 'k'));
      const before = describeTree(await layerOf(driver, 'k'));
      const first = await driver.checkpoint('one', 'k');
      const second = await driver.checkpoint('two', 'k');
      expect(describeTree(await layerOf(driver, 'one'))).toBe(before);
      expect(describeTree(await layerOf(driver, 'two'))).toBe(before);
      expect(describeTree(await layerOf(driver, 'k'))).toBe(before);
      expect(second.seal).toBe(first.seal);
      expect((await driver.commit('three', 'k')).seal).toBe(first.seal);
      expect((await driver.usage('one')).inodes).toBe((await driver.usage('three')).inodes);
      await driver.close();
      assertWhole(disk.root);
    },
  );

  test.for(['xfs', 'btrfs'] as const)(
    'checkpoint() on %s shares the blocks of the layer',
    async (type, { undo }) => {
      const disk = makeDisk(type, 512);
      undo(() => disk.remove());
      await using driver = await OverlayDriver.open(disk.root, { backups: false });
      await driver.prepare('k');
      const file = join(await layerOf(driver, 'k'), 'file');
      sh(`head -c 150M /dev/urandom > '${file}'; sync -f .`, disk.path);
      // Four times as much as the disk would hold.
      for (const name of ['a', 'b', 'c', 'd']) await driver.checkpoint(name, 'k');
      writeFileSync(file, 'changed', { flag: 'r+' });
      const copied = readFileSync(join(await layerOf(driver, 'd'), 'file')).subarray(0, 7);
      expect(copied.toString()).not.toBe('changed');
      await driver.close();
      assertWhole(disk.root);
    },
  );

  test.for(['ext4', 'xfs', 'btrfs', 'tmpfs'] as const)(
    'checkpoint() on %s links no file to one that had its inode number before',
    async (type, { undo }) => {
      const disk = makeDisk(type, 512);
      undo(() => disk.remove());
      await using driver = await OverlayDriver.open(disk.root, { backups: false });
      await driver.prepare('k');
      const layer = await layerOf(driver, 'k');
      sh(
        `mkdir a m z; (cd m; seq 3000 | xargs touch)
         for i in $(seq 50); do echo "a $i" > a/$i; ln a/$i a/$i-again; done`,
        layer,
      );
      let replaced = false;
      await driver.checkpoint('n', 'k', {
        onProgress: ({ phase, inodes }) => {
          if (replaced || phase !== 'copying' || inodes < 500) return;
          replaced = true;
          sh(`rm a/*; for i in $(seq 50); do echo "z $i" > z/$i; ln z/$i z/$i-again; done`, layer);
        },
      });
      expect(replaced).toBe(true);
      const copy = await layerOf(driver, 'n');
      const check = `for i in $(seq 50); do [ "$(cat a/$i a/$i-again)" = "a $i
a $i" ] && [ "$(cat z/$i z/$i-again)" = "z $i
z $i" ] && [ z/$i -ef z/$i-again ] && [ a/$i -ef a/$i-again ] && echo right; done | sort | uniq -c`;
      expect(sh(check, copy).trim()).toBe('50 right');
    },
  );

  test.for(['ext4', 'xfs', 'btrfs'] as const)(
    'checkpoint() on %s keeps the flags immutable, append-only and no dump, and the copy can be deleted',
    async (type, { undo }) => {
      const disk = makeDisk(type, 512);
      undo(() => disk.remove());
      await using driver = await OverlayDriver.open(disk.root, { seal: 'content', backups: false });
      await driver.prepare('k');
      const layer = await layerOf(driver, 'k');
      sh(
        `mkdir i a; echo x > i/file; ln i/file linked; echo y > a/log; echo z > plain; ln -s plain i/link
         chattr +i i/file i; chattr +a a/log a; chattr +d plain`,
        layer,
      );
      const flags = (directory: string): string =>
        sh(
          "lsattr -R . 2> /dev/null | sed -n 's/^\\([-a-zA-Z]*\\) /\\1 /p' | tr -d 'emA-Z-' | sort",
          directory,
        );
      const copy = await driver.checkpoint('one', 'k');
      expect(flags(await layerOf(driver, 'one'))).toBe(flags(layer));
      expect(sh('cat i/file linked; stat -c %h linked', await layerOf(driver, 'one'))).toBe('x\nx\n2\n');
      const { seal } = await driver.commit('n', 'k');
      expect(copy.seal).toBe(seal);
      expect(await driver.delete('one')).toEqual({});
      expect(await driver.delete('n')).toEqual({});
      expect(idsOnDisk(disk.root)).toEqual([]);
    },
  );

  test('checkpoint() and usage() tell the files of btrfs subvolumes apart, which have the same inode numbers', async ({
    undo,
  }) => {
    const disk = makeDisk('btrfs', 512);
    undo(() => disk.remove());
    await using driver = await OverlayDriver.open(disk.root, { backups: false });
    await driver.prepare('k');
    const layer = await layerOf(driver, 'k');
    sh(
      `for name in one two; do
         btrfs -q subvolume create $name; echo $name > $name/file; ln $name/file $name/again
       done; [ $(stat -c %i one/file) = $(stat -c %i two/file) ]`,
      layer,
    );
    expect((await driver.usage('k')).inodes).toBe(5);
    await driver.checkpoint('n', 'k');
    const seen = sh('cat one/* two/*; stat -c %h */*', await layerOf(driver, 'n'));
    expect(seen).toBe('one\none\ntwo\ntwo\n2\n2\n2\n2\n');
    expect((await driver.usage('n')).inodes).toBe(5);
  });

  test('checkpoint() of a mounted overlay keeps what was deleted, replaced and renamed in it', async ({
    driver,
  }) => {
    await commitLayer(driver, 'base', null, 'mkdir -p d/e gone; echo 1 > d/e/f; echo 2 > gone/g; echo 3 > h');
    await driver.prepare('k', 'base');
    await withMount(await driver.mounts('k'), async (tree) => {
      sh('rm -r gone h; rm -r d; mkdir d; echo new > d/x; ln d/x y', tree);
      await driver.checkpoint('one', 'k');
      sh('rm -r d; echo later > z', tree);
      await driver.checkpoint('two', 'k');
      expect(sh('echo still here > w; ls', tree)).toBe('w\ny\nz\n');
    });
    const seen = async (name: string): Promise<string> => {
      let list = '';
      await withMount(await driver.view(`look at ${name}`, name), async (tree) => {
        // Only ext4 and xfs count the links of a directory.
        list = sh(
          String.raw`find . -mindepth 1 \( -type d -printf "%P\n" -o -printf "%P %n\n" \) | sort | xargs`,
          tree,
        );
      });
      await driver.remove(`look at ${name}`);
      return list;
    };
    expect(await seen('one')).toBe('d d/x 2 y 2\n');
    expect(await seen('two')).toBe('y 1 z 1\n');
    expect(await driver.parent('two')).toBe('base');
  });

  test('checkpoint() copies hard links below paths that are longer than the kernel takes at once', async ({
    driver,
    root,
  }) => {
    await driver.prepare('k');
    const name = 'n'.repeat(250);
    sh(
      `for i in $(seq 40); do mkdir ${name}; cd ${name}; done; echo far > first; ln first second`,
      await layerOf(driver, 'k'),
    );
    await driver.checkpoint('n', 'k');
    const script = `for i in $(seq 40); do cd ${name}; done; cat second; stat -c %h second`;
    expect(sh(script, await layerOf(driver, 'n'))).toBe('far\n2\n');
    expect(await driver.remove('k')).toEqual({});
    expect(await driver.delete('n')).toEqual({});
    expect(idsOnDisk(root)).toEqual([]);
  });

  test('checkpoint() leaves out what is mounted on a directory of the layer, and copies what is below', async ({
    driver,
  }) => {
    await driver.prepare('k');
    const layer = await layerOf(driver, 'k');
    sh('mkdir d; echo below > d/f; chmod 700 d', layer);
    sh('mount -t tmpfs -o mode=755 tmpfs d; echo above > d/f', layer);
    try {
      await driver.checkpoint('n', 'k');
    } finally {
      unmount(join(layer, 'd'));
    }
    expect(describeTree(await layerOf(driver, 'n'))).toBe(describeTree(layer));
  });
});

test('checkpoint() of a file that gets shorter while it is copied fails and leaves the key as it was', async ({
  driver,
  root,
}) => {
  await driver.prepare('k');
  const file = join(await layerOf(driver, 'k'), 'file');
  writeFileSync(file, Buffer.alloc(64 * 1024 * 1024, 'x'));
  const onProgress = ({ bytes }: Progress): void => {
    // Of the file, and not only of the directory before it.
    if (bytes > 1024 * 1024) truncateSync(file, 1000);
  };
  await expect(driver.checkpoint('n', 'k', { onProgress })).rejects.toMatchObject({
    code: 'FAILED_PRECONDITION',
  });
  expect(idsOnDisk(root)).toEqual(['1']);
  await driver.checkpoint('n', 'k');
  expect(statSync(join(await layerOf(driver, 'n'), 'file')).size).toBe(1000);
});

const lackingRoot = needs('root');

test.skipIf(lackingRoot)(
  `checkpoint() while a process writes without end has every file as it was at some moment${lackingRoot}`,
  async ({ driver, target, undo }) => {
    await commitLayer(driver, 'base');
    await driver.prepare('k', 'base');
    mount(await driver.mounts('k'), target);
    undo(() => unmount(target));
    const script = join(import.meta.dirname, '../support/keep-writing.mjs');
    const writer = await startProcess('writing', process.execPath, [script, target]);
    undo(() => writer.kill());
    for (let i = 0; i < 5; i += 1) await driver.checkpoint(`c${i}`, 'k');
    await driver.commit('n', 'k', { inUse: 'copy' });
    await writer.kill();
    for (const name of ['c0', 'c1', 'c2', 'c3', 'c4', 'n']) {
      const layer = await layerOf(driver, name);
      // Replaced as a whole each time, so whole in every copy; the log has nothing but whole lines and its end.
      expect(readFileSync(join(layer, 'replaced'), 'utf8')).toMatch(/^(\d+ )\1*$/);
      expect(readFileSync(join(layer, 'log'), 'utf8')).toMatch(/^(line \d+\n)+(l?i?n?e? ?\d*)$/);
    }
    expect((await driver.stat('n')).inUse).toBe(false);
  },
);

const lackingUser = needs('root', 'setpriv', 'unshare');

test.skipIf(lackingUser)(
  `checkpoint() in a user namespace keeps what the overlay shows${lackingUser}`,
  ({ place, checkout }) => {
    const directory = join(place, 'of-the-user');
    mkdirSync(directory);
    sh('chown 65534:65534 .', directory);
    const program = [process.execPath, `${checkout}/test/support/rootless-checkpoint.mjs`, directory];
    const { stdout, stderr } = spawnSync(
      'setpriv',
      ['--reuid=65534', '--regid=65534', '--clear-groups', 'unshare', '-Urm', ...program],
      { cwd: directory, encoding: 'utf8' },
    );
    expect(stderr).toBe('');
    expect(JSON.parse(stdout)).toEqual({ inUse: true, same: true, deferred: [], seen: ['./d', './d/new'] });
  },
);
