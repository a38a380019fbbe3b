import { existsSync, readFileSync, readdirSync, renameSync } from 'node:fs';
import { join } from 'node:path';
import { ensureDirSync, outputFileSync } from 'fs-extra/esm';
import { describe, expect } from 'vitest';
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
