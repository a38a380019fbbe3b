import {
  appendFileSync,
  chmodSync,
  renameSync,
  rmSync,
  symlinkSync,
  truncateSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { outputFileSync } from 'fs-extra/esm';
import { describe, expect } from 'vitest';
import { type Info, OverlayDriver } from '../../src/index.ts';
import { measure, verifySeal } from '../../src/layers/seal.ts';
import { walkTree } from '../../src/linux/tree-walk.ts';
import { makeDisk } from '../support/disk.ts';
import { test } from '../support/fixtures.ts';
import { changesOf, commitLayer, layerOf } from '../support/layers.ts';
import { needs } from '../support/needs.ts';
import { makeOddTree, sh, treeCommands } from '../support/tree.ts';

/** Commits a layer of a few files. */
async function commit(driver: OverlayDriver): Promise<{ info: Info; layer: string }> {
  await driver.prepare('k');
  const layer = await layerOf(driver, 'k');
  outputFileSync(join(layer, 'd/file'), 'contents');
  outputFileSync(join(layer, 'other'), 'x'.repeat(300_000));
  symlinkSync('d/file', join(layer, 'link'));
  return { info: await driver.commit('n', 'k'), layer };
}

async function verdict(layer: string, seal: string | null, contents = false): Promise<string> {
  return (await verifySeal(walkTree(layer), seal, { contents })).seal;
}

describe('a seal over contents', () => {
  test.override({ driverOptions: { seal: 'content', backups: false } });

  test('verifySeal() finds a layer whole that nobody has changed', async ({ driver }) => {
    const { info, layer } = await commit(driver);
    expect(info.seal).toMatch(/^metadata1:[0-9a-f]{64} content2:[0-9a-f]{64}$/);
    expect(await verdict(layer, info.seal)).toBe('whole');
    expect(await verdict(layer, info.seal, true)).toBe('whole');
    expect((await verifySeal(walkTree(layer), info.seal)).usage).toEqual(await driver.usage('n'));
  });

  const lackingTools = needs('root', ...treeCommands);
  test.skipIf(lackingTools)(
    `verifySeal() finds a layer whole that has one of every kind of file${lackingTools}`,
    async ({ driver }) => {
      // It holds whiteouts, which a base must not.
      await commitLayer(driver, 'base', null, '');
      await driver.prepare('k', 'base');
      const layer = await layerOf(driver, 'k');
      makeOddTree(layer);
      const { seal } = await driver.commit('n', 'k');
      expect(await verdict(layer, seal, true)).toBe('whole');
    },
  );

  const changes: Readonly<Record<string, (layer: string) => void>> = {
    'a file was added': (layer) => writeFileSync(join(layer, 'd/new'), ''),
    'a file was removed': (layer) => rmSync(join(layer, 'd/file')),
    'a file was cut short': (layer) => truncateSync(join(layer, 'other'), 4096),
    'a file has no bytes left, as after a power cut': (layer) => truncateSync(join(layer, 'other'), 0),
    'a file has grown': (layer) => appendFileSync(join(layer, 'd/file'), '!'),
    'a file was written to and has the same length': (layer) =>
      writeFileSync(join(layer, 'd/file'), 'CONTENTS'),
    'a file was renamed': (layer) => renameSync(join(layer, 'd/file'), join(layer, 'd/elif')),
    'a file has another mode': (layer) => chmodSync(join(layer, 'd/file'), 0o4755),
    'a file has another time': (layer) => utimesSync(join(layer, 'other'), 1, 2),
    'a link has another target'(layer) {
      rmSync(join(layer, 'link'));
      symlinkSync('d/else', join(layer, 'link'));
    },
  };
  test.for(Object.entries(changes))(
    'verifySeal() finds a layer broken if %s',
    async ([, change], { driver }) => {
      const { info, layer } = await commit(driver);
      change(layer);
      expect(await verdict(layer, info.seal)).toBe('broken');
      expect(await verdict(layer, info.seal, true)).toBe('broken');
    },
  );

  const lackingRoot = needs('root');
  test.skipIf(lackingRoot)(
    `verifySeal() finds a layer broken if a file has another owner${lackingRoot}`,
    async ({ driver }) => {
      const { info, layer } = await commit(driver);
      sh('chown 5:6 other', layer);
      expect(await verdict(layer, info.seal)).toBe('broken');
    },
  );

  test('verifySeal() finds changed contents, which the metadata does not show, when it reads them', async ({
    driver,
  }) => {
    const { info, layer } = await commit(driver);
    sh(
      'touch -r other ../ref; printf X | dd of=other bs=1 seek=1000 conv=notrunc status=none; touch -r ../ref other; rm ../ref',
      layer,
    );
    expect(await verdict(layer, info.seal)).toBe('whole');
    expect(await verdict(layer, info.seal, true)).toBe('broken');
  });

  test('verifySeal() finds a new extended attribute when it reads contents', async ({ driver }) => {
    const { info, layer } = await commit(driver);
    sh('setfattr -n user.a -v b d/file', layer);
    expect(await verdict(layer, info.seal)).toBe('whole');
    expect(await verdict(layer, info.seal, true)).toBe('broken');
  });

  test('verifySeal() verifies a seal of an older store, with version 1 of the digest over contents', async ({
    driver,
  }) => {
    const { layer } = await commit(driver);
    const { digest } = await measure(walkTree(layer), { contents: true, contentVersion: 1 });
    expect(digest).toMatch(/ content1:/);
    expect(await verdict(layer, digest, true)).toBe('whole');
    sh(
      'touch -r other ../ref; echo X >> other; truncate -s -1 other; touch -r ../ref other; rm ../ref',
      layer,
    );
    expect(await verdict(layer, digest, true)).toBe('broken');
  });

  test('verifySeal() says "unknown" of no seal, and of one of a version that it does not know', async ({
    driver,
  }) => {
    const { layer } = await commit(driver);
    expect(await verdict(layer, null)).toBe('unknown');
    expect(await verdict(layer, 'metadata9:abc', true)).toBe('unknown');
    expect(await verdict(layer, 'rubbish')).toBe('unknown');
  });

  test('verifySeal() rejects with ENOENT if the layer is gone', async ({ driver }) => {
    const { info, layer } = await commit(driver);
    await expect(verifySeal(walkTree(`${layer}-gone`), info.seal)).rejects.toMatchObject({ code: 'ENOENT' });
  });

  test('commit() of a key that was prepared in the same transaction seals its contents too', async ({
    driver,
  }) => {
    const { seal } = await driver.transaction((tx) => {
      const [mount] = tx.prepare('k');
      writeFileSync(join(mount?.source ?? '', 'file'), 'written within');
      return tx.commit('n', 'k');
    });
    expect(seal).toMatch(/ content2:/);
    expect(await verdict(await layerOf(driver, 'n'), seal, true)).toBe('whole');
  });
});

const lackingXfs = needs('root', 'mkfs.xfs');

test.skipIf(lackingXfs)(
  `a file of petabytes that is nearly all holes is sealed, copied, compared and checked by its data${lackingXfs}`,
  async ({ undo }) => {
    const disk = makeDisk('xfs', 512);
    undo(() => disk.remove());
    await using driver = await OverlayDriver.open(disk.root, { seal: 'content', backups: false });
    await driver.prepare('k');
    const layer = await layerOf(driver, 'k');
    sh('truncate -s 4000T file; echo data | dd of=file bs=1M seek=2G conv=notrunc status=none', layer);
    const copy = await driver.checkpoint('copy', 'k');
    const { seal } = await driver.commit('n', 'k');
    expect(seal).toBe(copy.seal);
    sh(`touch ${await layerOf(driver, 'copy')}/file`, disk.path);
    expect(await changesOf(driver, 'copy', { against: 'n', contents: true })).toMatchObject([
      { path: '/file', differences: ['time'] },
    ]);
    sh(`echo date | dd of=file bs=1M seek=2G conv=notrunc status=none`, await layerOf(driver, 'copy'));
    expect(await changesOf(driver, 'copy', { against: 'n', contents: true })).toMatchObject([
      { path: '/file', differences: ['time', 'contents'] },
    ]);
    expect((await driver.check({ contents: true })).findings).toMatchObject([{ code: 'seal-broken' }]);
  },
);

test('a seal over metadata alone says nothing about contents', async ({ driver }) => {
  const { info, layer } = await commit(driver);
  expect(info.seal).toMatch(/^metadata1:[0-9a-f]{64}$/);
  expect(await verdict(layer, info.seal, true)).toBe('whole');
});

test('seal() gives the same digest again for what has not changed, and another after every change of metadata', async ({
  driver,
}) => {
  await driver.prepare('k');
  const layer = await layerOf(driver, 'k');
  sh(
    `echo x > a; ln a b; mkdir d; mkfifo d/p; ln -s a d/s; truncate -s 1M sparse; printf x > "$(printf 'bad\\377name')"`,
    layer,
  );
  const { digest } = await driver.seal('k');
  expect(await driver.seal('k')).toMatchObject({ digest });
  const seen = new Set([digest]);
  for (const change of [
    'chmod 600 a',
    'touch -d 2001-01-01T00:00:00.000000001 d/p',
    'ln -sfn b d/s',
    'mv sparse other',
    'truncate -s 2M other',
    'rm d/p',
  ]) {
    sh(change, layer);
    seen.add((await driver.seal('k')).digest);
  }
  expect(seen.size).toBe(7);
  for (const each of seen) expect(each).toMatch(/^metadata1:[0-9a-f]{64}$/);
});
