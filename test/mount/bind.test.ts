import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect } from 'vitest';
import { mount, unmount } from '../../src/mount/index.ts';
import { test } from '../support/fixtures.ts';
import { layerOf } from '../support/layers.ts';
import { needs } from '../support/needs.ts';

const lacking = needs('root');

describe.skipIf(lacking)(`a bind${lacking}`, () => {
  test('mount() of a view on a base is read-only, with what is mounted below it', async ({
    driver,
    target,
    undo,
  }) => {
    await driver.prepare('k');
    const layer = await layerOf(driver, 'k');
    mkdirSync(`${layer}/below`);
    await driver.commit('base', 'k');
    execFileSync('mount', ['-t', 'tmpfs', 'tmpfs', `${layer}/below`]);
    undo(() => execFileSync('umount', [`${layer}/below`]));
    await mount(await driver.view('v', 'base'), target);
    expect(() => writeFileSync(join(target, 'x'), '')).toThrow(/EROFS/);
    expect(() => writeFileSync(join(target, 'below/x'), '')).toThrow(/EROFS/);
    writeFileSync(`${layer}/below/x`, '');
    expect(existsSync(join(target, 'below/x'))).toBe(true);
    await unmount(join(target, 'below'));
    await unmount(target);
  });

  test('mount() of a base that is being made can be written to', async ({ driver, target }) => {
    await mount(await driver.prepare('k'), target);
    writeFileSync(join(target, 'file'), 'x');
    await unmount(target);
    expect(readFileSync(`${await layerOf(driver, 'k')}/file`, 'utf8')).toBe('x');
  });
});
