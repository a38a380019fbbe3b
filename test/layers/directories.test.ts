import { existsSync, readFileSync, readdirSync, renameSync } from 'node:fs';
import { join } from 'node:path';
import { ensureDirSync, outputFileSync } from 'fs-extra/esm';
import { describe, expect } from 'vitest';
import { OverlayDriver, checkStore } from '../../src/index.ts';
import { makeDisk } from '../support/disk.ts';
import { test } from '../support/fixtures.ts';
import { changesOf, commitLayer, layerOf } from '../support/layers.ts';
import { withMount } from '../support/mount.ts';
import { needs } from '../support/needs.ts';
import { sh } from '../support/tree.ts';

describe('a directory in the way of a new id', () => {
  test('prepare() uses the empty skeleton that a crash left in its way', async ({ driver, root }) => {
    for (const part of ['fs', 'work']) ensureDirSync(join(root, 'snapshots/1', part));
    await driver.prepare('k');
    expect(existsSync(join(root, 'lost+found'))).toBe(false);
  });

  test('prepare() keeps in lost+found what is in its way and holds anything', async ({ driver, root }) => {
    outputFileSync(join(root, 'snapshots/1/fs/precious'), 'x');
    await driver.prepare('k');
    const [kept] = readdirSync(join(root, 'lost+found'));
    expect(readFileSync(join(root, 'lost+found', kept ?? '', 'fs/precious'), 'utf8')).toBe('x');
    expect(readdirSync(await layerOf(driver, 'k'))).toEqual([]);
  });
});

test('prepare() on a parent whose layer is gone is DATA_LOSS', async ({ driver }) => {
  await commitLayer(driver, 'base', null, '');
  const layer = await layerOf(driver, 'base');
  renameSync(layer, `${layer}-away`);
  await expect(driver.prepare('k', 'base')).rejects.toMatchObject({ code: 'DATA_LOSS' });
  expect(await driver.exists('k')).toBe(false);
  renameSync(`${layer}-away`, layer);
});

const lacking = needs('root', 'setfacl', 'getfattr', 'setpriv');

describe.skipIf(lacking)(`the root of a new layer${lacking}`, () => {
  /** What a user in one group may do in a directory. */
  function rightsOf(user: number, group: number, directory: string): string {
    const as = `setpriv --reuid ${user} --regid ${group} --clear-groups`;
    return sh(
      `${as} ls . > /dev/null 2>&1 && echo may read; ${as} touch tried 2> /dev/null && echo may write; rm -f tried`,
      directory,
    );
  }

  test('prepare() gives it the owner, the mode and the attributes of its parent, and diff() finds no difference', async ({
    driver,
    place,
    root,
  }) => {
    sh('chmod 755 .', place);
    await commitLayer(
      driver,
      'base',
      null,
      `chown 5:50 .; chmod 2750 .; setfacl -m u:1234:rwx,g:60:r-x .; setfacl -d -m u:1234:r .
       setfattr -n user.note -v one .; setfattr -n trusted.note -v two .; setfattr -n trusted.overlay.opaque -v y .`,
    );
    await driver.prepare('k', 'base');
    const [base, layer] = [await layerOf(driver, 'base'), await layerOf(driver, 'k')];
    const look = (directory: string): string =>
      sh(`stat -c '%a %u:%g' .; getfacl -cpn .; getfattr -d -m '^(user|trusted)[.]note' .`, directory);
    expect(look(layer)).toBe(look(base));
    expect(sh('getfattr -m trusted.overlay .', layer)).toBe('');
    expect(await changesOf(driver, 'k')).toEqual([]);
    await withMount(await driver.mounts('k'), async (tree) => {
      sh(`chmod 711 ${root} ${root}/snapshots ${root}/snapshots/*`, place);
      for (const directory of [base, tree]) {
        expect(rightsOf(5, 1, directory)).toBe('may read\nmay write\n');
        expect(rightsOf(1234, 1, directory)).toBe('may read\nmay write\n');
        expect(rightsOf(1, 60, directory)).toBe('may read\n');
        expect(rightsOf(1, 50, directory)).toBe('may read\n');
        expect(rightsOf(1, 1, directory)).toBe('');
      }
      await Promise.resolve();
    });
    expect(await changesOf(driver, 'k')).toEqual([]);
  });

  test('prepare(), mounts and checkpoints let nothing in it inherit from the directories of the store', async ({
    driver,
    root,
  }) => {
    sh(
      `setfacl -m u:1234:rwx .; setfacl -d -m u:1234:rwx,g:60:rwx .; chgrp 60 .; chmod g+s .`,
      join(root, 'snapshots'),
    );
    await commitLayer(driver, 'base', null, 'echo old > file; mkdir d; echo x > d/x');
    await driver.prepare('k', 'base');
    await withMount(await driver.mounts('k'), async (tree) => {
      sh('echo more >> file; mkdir new d/new; echo x > d/new/x; ln -s x link', tree);
      await driver.checkpoint('copy', 'k');
    });
    for (const name of ['base', 'k', 'copy']) {
      const layer = await layerOf(driver, name);
      expect(sh(`getfattr -R -h -m '^system[.]' .; find . -gid 60 -o -perm /6000`, layer)).toBe('');
    }
  });
});

const lackingFlags = needs('root', 'chattr', 'mkfs.ext4');

describe.skipIf(lackingFlags)(`something immovable in the way of a new id${lackingFlags}`, () => {
  test('prepare() and checkpoint() take the next id, and a check says why it cannot be moved', async ({
    undo,
  }) => {
    const disk = makeDisk('ext4', 256);
    const at = (id: number): string => join(disk.root, 'snapshots', String(id));
    undo(() => {
      sh('umount 3; chattr -i 1 4', join(disk.root, 'snapshots'));
      disk.remove();
    });
    await using driver = await OverlayDriver.open(disk.root, { backups: false });
    for (const id of [1, 3, 4]) outputFileSync(join(at(id), 'fs/precious'), 'x');
    sh('chattr +i 1 4; mount -t tmpfs none 3', join(disk.root, 'snapshots'));
    await driver.prepare('a');
    expect((await driver.stat('a')).id).toBe(2);
    expect((await driver.checkpoint('copy', 'a')).id).toBe(5);
    await driver.transaction((tx) => {
      tx.prepare('b', 'copy');
      tx.prepare('c', 'copy');
    });
    expect((await driver.stat('c')).id).toBe(7);
    await driver.close();
    const { findings, repairs } = await checkStore(disk.root, { repair: true });
    expect(findings.map(({ code, id }) => `${code} ${id}`).toSorted()).toEqual([
      'directory-unknown 1',
      'directory-unknown 4',
      'mounted-over 3',
    ]);
    for (const { outcome, detail } of repairs) {
      expect(outcome).toBe('refused');
      expect(detail).toMatch(/snapshots\/[14]" is immutable or append-only \(lsattr -d, chattr -i -a\)$/);
    }
    expect(readFileSync(join(at(1), 'fs/precious'), 'utf8')).toBe('x');
  });
});
