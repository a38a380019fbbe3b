import { existsSync, readFileSync, readdirSync, renameSync } from 'node:fs';
import { join } from 'node:path';
import { ensureDirSync, outputFileSync } from 'fs-extra/esm';
import { describe, expect } from 'vitest';
import { test } from '../support/fixtures.ts';
import { commitLayer, layerOf } from '../support/layers.ts';

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
