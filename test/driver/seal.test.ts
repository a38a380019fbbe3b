import {
  appendFileSync,
  chmodSync,
  mkdirSync,
  renameSync,
  rmSync,
  symlinkSync,
  truncateSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { verifySeal } from '../../src/layers/seal.ts';
import { type Info, OverlayDriver } from '../../src/index.ts';
import { isRoot } from '../support/needs.ts';
import { useStore } from '../support/store.ts';
import { makeOddTree, missing, sh, treeCommands } from '../support/tree.ts';

const store = useStore();
let driver: OverlayDriver;
beforeEach(async () => {
  driver = await OverlayDriver.open(store.root, { seal: 'content' });
});
afterEach(() => driver.close());

/** Commits a layer of a few files. */
async function commit(of = driver): Promise<{ info: Info; layer: string }> {
  await of.prepare('k');
  const layer = `${(await of.stat('k')).directory}/fs`;
  mkdirSync(join(layer, 'd'));
  writeFileSync(join(layer, 'd/file'), 'contents');
  writeFileSync(join(layer, 'other'), 'x'.repeat(300_000));
  symlinkSync('d/file', join(layer, 'link'));
  return { info: await of.commit('n', 'k'), layer };
}

const verdict = async (layer: string, seal: string | null, contents = false): Promise<string> =>
  (await verifySeal(layer, seal, { contents })).seal;

describe('a seal', () => {
  test('is whole as long as nothing has changed', async () => {
    const { info, layer } = await commit();
    expect(info.seal).toMatch(/^metadata1:[0-9a-f]{64} content1:[0-9a-f]{64}$/);
    expect(await verdict(layer, info.seal)).toBe('whole');
    expect(await verdict(layer, info.seal, true)).toBe('whole');
    expect((await verifySeal(layer, info.seal)).usage).toEqual(await driver.usage('n'));
  });

  const lacking = [...(isRoot ? [] : ['root']), ...missing(...treeCommands)].join(', ');
  test.skipIf(lacking !== '')(`covers one of everything${lacking && ` (needs ${lacking})`}`, async () => {
    await driver.prepare('k');
    const layer = `${(await driver.stat('k')).directory}/fs`;
    makeOddTree(layer);
    const { seal } = await driver.commit('n', 'k');
    expect(await verdict(layer, seal, true)).toBe('whole');
  });

  const damage: Readonly<Record<string, (layer: string) => void>> = {
    'a file added': (layer) => writeFileSync(join(layer, 'd/new'), ''),
    'a file removed': (layer) => rmSync(join(layer, 'd/file')),
    'a file cut short': (layer) => truncateSync(join(layer, 'other'), 4096),
    'a file of no bytes, as a power cut leaves it': (layer) => truncateSync(join(layer, 'other'), 0),
    'a file that grew': (layer) => appendFileSync(join(layer, 'd/file'), '!'),
    'a file written to, of the same length': (layer) => writeFileSync(join(layer, 'd/file'), 'CONTENTS'),
    'a file renamed': (layer) => renameSync(join(layer, 'd/file'), join(layer, 'd/elif')),
    'another mode': (layer) => chmodSync(join(layer, 'd/file'), 0o4755),
    'another time': (layer) => utimesSync(join(layer, 'other'), 1, 2),
    'another target of a link': (layer) => {
      rmSync(join(layer, 'link'));
      symlinkSync('d/else', join(layer, 'link'));
    },
  };
  test.each(Object.entries(damage))('is broken by %s', async (_, harm) => {
    const { info, layer } = await commit();
    harm(layer);
    expect(await verdict(layer, info.seal)).toBe('broken');
    expect(await verdict(layer, info.seal, true)).toBe('broken');
  });

  test.skipIf(!isRoot)(`is broken by another owner${isRoot ? '' : ' (needs root)'}`, async () => {
    const { info, layer } = await commit();
    sh('chown 5:6 other', layer);
    expect(await verdict(layer, info.seal)).toBe('broken');
  });

  test('of contents finds what the metadata does not show', async () => {
    const { info, layer } = await commit();
    sh(
      'touch -r other ../ref; printf X | dd of=other bs=1 seek=1000 conv=notrunc status=none; touch -r ../ref other; rm ../ref',
      layer,
    );
    expect(await verdict(layer, info.seal)).toBe('whole');
    expect(await verdict(layer, info.seal, true)).toBe('broken');
  });

  test('of contents covers extended attributes', async () => {
    const { info, layer } = await commit();
    sh('setfattr -n user.a -v b d/file', layer);
    expect(await verdict(layer, info.seal)).toBe('whole');
    expect(await verdict(layer, info.seal, true)).toBe('broken');
  });

  test('of metadata alone says nothing about contents', async () => {
    await using plain = await OverlayDriver.open(store.root);
    const { info, layer } = await commit(plain);
    expect(info.seal).toMatch(/^metadata1:[0-9a-f]{64}$/);
    expect(await verdict(layer, info.seal, true)).toBe('whole');
  });

  test('that is not there, or of a version that is not known here, says nothing', async () => {
    const { layer } = await commit();
    expect(await verdict(layer, null)).toBe('unknown');
    expect(await verdict(layer, 'metadata9:abc', true)).toBe('unknown');
    expect(await verdict(layer, 'rubbish')).toBe('unknown');
  });

  test('of a layer that is gone cannot be verified', async () => {
    const { info, layer } = await commit();
    await expect(verifySeal(`${layer}-gone`, info.seal)).rejects.toMatchObject({ code: 'ENOENT' });
  });

  test('of a key that was prepared in the same transaction is of the same kind', async () => {
    const { seal } = await driver.transaction((tx) => {
      const [mount] = tx.prepare('k');
      writeFileSync(join(mount?.source ?? '', 'file'), 'written within');
      return tx.commit('n', 'k');
    });
    const { directory } = await driver.stat('n');
    expect(seal).toMatch(/ content1:/);
    expect(await verdict(`${directory}/fs`, seal, true)).toBe('whole');
  });
});
