import { existsSync, readdirSync, readlinkSync, renameSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect } from 'vitest';
import type { DiffOptions } from '../../src/index.ts';
import { test } from '../support/fixtures.ts';
import { changesOf, commitLayer, layerOf } from '../support/layers.ts';
import { needs } from '../support/needs.ts';

const lacking = needs('root');

describe.skipIf(lacking)(`a comparison that cannot be made, or is not finished${lacking}`, () => {
  test('diff() is NOT_FOUND if one of its snapshots is missing', async ({ driver }) => {
    await commitLayer(driver, 'base');
    await expect(changesOf(driver, 'nowhere')).rejects.toMatchObject({ code: 'NOT_FOUND' });
    await expect(changesOf(driver, 'base', { against: 'nowhere' })).rejects.toMatchObject({
      code: 'NOT_FOUND',
    });
  });

  test('diff() throws at once if an argument is wrong', ({ driver }) => {
    expect(() => driver.diff('')).toThrow(/the key or name is empty/);
    expect(() => driver.diff(7 as unknown as string)).toThrow(TypeError);
    expect(() => driver.diff('base', { contents: 'yes' as unknown as boolean })).toThrow(TypeError);
    expect(() => driver.diff('base', { signal: 1 as unknown as AbortSignal })).toThrow(TypeError);
    expect(() => driver.diff('base', { agains: 'base' } as DiffOptions)).toThrow(/no option "agains"/);
  });

  test('diff() ends with the reason of its signal', async ({ driver }) => {
    await commitLayer(driver, 'base');
    const signal = AbortSignal.abort(new Error('enough'));
    await expect(changesOf(driver, 'base', { signal })).rejects.toThrow('enough');
  });

  test('diff() is DATA_LOSS if a layer is missing', async ({ driver }) => {
    await commitLayer(driver, 'base');
    await driver.prepare('work', 'base');
    const layer = await layerOf(driver, 'work');
    renameSync(layer, `${layer}-away`);
    await expect(changesOf(driver, 'work')).rejects.toMatchObject({ code: 'DATA_LOSS' });
    renameSync(`${layer}-away`, layer);
    expect(await changesOf(driver, 'work')).toEqual([]);
  });

  test('diff() that is left before its end leaves nothing mounted, and nothing open', async ({
    driver,
    root,
  }) => {
    await commitLayer(driver, 'base', null, 'seq 500 | xargs touch');
    const open = (): string[] =>
      readdirSync('/proc/self/fd')
        .map((fd) => (existsSync(`/proc/self/fd/${fd}`) ? readlinkSync(`/proc/self/fd/${fd}`) : ''))
        .filter((path) => path === '/' || path === join(root, 'snapshots', '1', 'fs'));
    const held = open();
    for await (const { path } of driver.diff('base')) {
      expect(open()).not.toEqual(held);
      if (path === '/100') break;
    }
    expect(open()).toEqual(held);
    await driver.delete('base');
    expect(await driver.cleanup()).toMatchObject({ deferred: [] });
  });

  test('diff() is FAILED_PRECONDITION after close()', async ({ driver }) => {
    await commitLayer(driver, 'base');
    await driver.close();
    await expect(changesOf(driver, 'base')).rejects.toMatchObject({ code: 'FAILED_PRECONDITION' });
  });
});
