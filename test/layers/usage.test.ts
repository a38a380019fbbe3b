import { renameSync, rmSync, symlinkSync } from 'node:fs';
import { expect } from 'vitest';
import { test } from '../support/fixtures.ts';
import { idsOnDisk, layerOf } from '../support/layers.ts';
import { sh } from '../support/tree.ts';

test('usage() counts hard links once and takes names that are not UTF-8', async ({ driver }) => {
  await driver.prepare('k');
  const layer = await layerOf(driver, 'k');
  sh(
    `echo x > a; ln a b; mkdir d; mkfifo d/p; ln -s a d/s; truncate -s 1M sparse; printf x > "$(printf 'bad\\377name')"`,
    layer,
  );
  expect((await driver.usage('k')).inodes).toBe(7);
  expect((await driver.usage('k')).size).toBe(Number(sh('du -s -B 512 . | cut -f 1', layer)) * 512);
});

test('usage(), seal() and remove() go through a tree that is deeper than any path can be long', async ({
  driver,
  root,
}) => {
  await driver.prepare('k');
  const name = 'n'.repeat(200);
  sh(`for i in $(seq 60); do mkdir ${name}; cd -P ${name}; done; echo x > file`, await layerOf(driver, 'k'));
  expect((await driver.usage('k')).inodes).toBe(62);
  expect((await driver.seal('k')).usage.inodes).toBe(62);
  expect(await driver.remove('k')).toEqual({});
  expect(idsOnDisk(root)).toEqual([]);
});

test('usage() and commit() of a layer that is gone, or a symbolic link, are DATA_LOSS, and the key stays', async ({
  driver,
}) => {
  await driver.prepare('k');
  const layer = await layerOf(driver, 'k');
  for (const damage of [(): void => {}, (): void => symlinkSync('/etc', layer)]) {
    renameSync(layer, `${layer}-away`);
    damage();
    await expect(driver.usage('k')).rejects.toMatchObject({ code: 'DATA_LOSS' });
    await expect(driver.commit('n', 'k')).rejects.toMatchObject({ code: 'DATA_LOSS' });
    rmSync(layer, { force: true });
    renameSync(`${layer}-away`, layer);
  }
  await driver.commit('n', 'k');
});
