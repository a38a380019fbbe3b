import { execFileSync } from 'node:child_process';
import { mkdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect } from 'vitest';
import { OverlayDriver } from '../../src/index.ts';
import { test } from '../support/fixtures.ts';
import { commitLayer, layerOf } from '../support/layers.ts';
import { needs } from '../support/needs.ts';

const lacking = needs('root');
const refused = { code: 'FAILED_PRECONDITION' };

describe.skipIf(lacking)(`mount()${lacking}`, () => {
  test('mount() mounts an active snapshot, a view, and a base that is being made', async ({
    driver,
    target,
  }) => {
    await driver.prepare('k');
    await driver.mount('k', target);
    writeFileSync(join(target, 'file'), 'x');
    await driver.unmount(target);
    await driver.commit('base', 'k');
    await driver.prepare('l', 'base');
    await driver.mount('l', target, { by: 'mount(2)' });
    expect(readFileSync(join(target, 'file'), 'utf8')).toBe('x');
    await driver.unmount(target);
    await driver.view('v', 'base');
    await driver.mount('v', target);
    expect(() => writeFileSync(join(target, 'file'), '')).toThrow(/EROFS/);
    await driver.unmount(target);
  });

  test('mount() refuses a committed snapshot, a missing one, and one of which a layer is missing', async ({
    driver,
    target,
  }) => {
    await commitLayer(driver, 'base');
    await expect(driver.mount('base', target)).rejects.toMatchObject(refused);
    await expect(driver.mount('missing', target)).rejects.toMatchObject({ code: 'NOT_FOUND' });
    await driver.prepare('k', 'base');
    const layer = await layerOf(driver, 'base');
    renameSync(layer, `${layer}-away`);
    await expect(driver.mount('k', target)).rejects.toMatchObject({ code: 'DATA_LOSS' });
    renameSync(`${layer}-away`, layer);
  });

  test('mount() refuses a second writable mount of a layer', async ({ driver, place, target }) => {
    await commitLayer(driver, 'base');
    await driver.prepare('k', 'base');
    await driver.mount('k', target);
    const second = join(place, 'second');
    mkdirSync(second);
    await expect(driver.mount('k', second)).rejects.toThrow(/mounted already/);
    await driver.unmount(target);
    await driver.mount('k', second);
    await driver.unmount(second);
  });

  test('mount() of one layer at the same time in two drivers succeeds once', async ({
    driver,
    place,
    root,
  }) => {
    await commitLayer(driver, 'base');
    await driver.prepare('k', 'base');
    await using other = await OverlayDriver.open(root, { backups: false });
    const targets = Array.from({ length: 8 }, (_, i) => join(place, `t${i}`));
    for (const path of targets) mkdirSync(path);
    const outcomes = await Promise.allSettled(
      targets.map((path, i) => (i % 2 === 0 ? driver : other).mount('k', path)),
    );
    const mounted = targets.filter((_, i) => outcomes[i]?.status === 'fulfilled');
    for (const path of mounted) await driver.unmount(path);
    expect(mounted).toHaveLength(1);
    for (const outcome of outcomes) {
      if (outcome.status === 'rejected') expect(outcome.reason).toMatchObject(refused);
    }
  });
});

describe.skipIf(lacking)(`unmount()${lacking}`, () => {
  test('unmount() refuses a target on which nothing is mounted', async ({ driver, target }) => {
    await expect(driver.unmount(target)).rejects.toMatchObject(refused);
  });

  test('unmount() refuses a mount that is not of an overlay', async ({ driver, target }) => {
    execFileSync('mount', ['-t', 'tmpfs', 'tmpfs', target]);
    try {
      await expect(driver.unmount(target)).rejects.toMatchObject(refused);
    } finally {
      execFileSync('umount', [target]);
    }
  });

  test('unmount() refuses a mount of another store', async ({ driver, place, target }) => {
    await using other = await OverlayDriver.open(join(place, 'other'), { backups: false });
    await other.prepare('k');
    await other.mount('k', target);
    await expect(driver.unmount(target)).rejects.toMatchObject(refused);
    await other.unmount(target);
  });

  test('unmount() of a target that is not a string is a TypeError', async ({ driver }) => {
    await expect(driver.unmount(7 as unknown as string)).rejects.toThrow(TypeError);
  });
});
