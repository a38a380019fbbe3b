import { join } from 'node:path';
import { describe, expect } from 'vitest';
import { checkStore } from '../../src/index.ts';
import { test } from '../support/fixtures.ts';
import { layerOf } from '../support/layers.ts';
import { needs } from '../support/needs.ts';
import { sh } from '../support/tree.ts';

const lacking = needs('root');

describe.skipIf(lacking)(`whiteouts in bases${lacking}`, () => {
  test('commit, checkpoint and seal refuse a base with a character device 0/0, and change nothing', async ({
    driver,
  }) => {
    await driver.prepare('work');
    sh('mkdir d; mknod d/hidden c 0 0; mknod d/null c 1 3', await layerOf(driver, 'work'));
    const refused = {
      code: 'FAILED_PRECONDITION',
      message: expect.stringMatching(/^"work" holds character devices 0\/0, .*: "\/d\/hidden"$/),
    };
    await expect(driver.commit('base', 'work')).rejects.toMatchObject(refused);
    await expect(driver.commit('base', 'work', { inUse: 'copy' })).rejects.toMatchObject(refused);
    await expect(driver.checkpoint('base', 'work')).rejects.toMatchObject(refused);
    await expect(driver.seal('work')).rejects.toMatchObject(refused);
    expect(await driver.exists('base')).toBe(false);
    sh('rm d/hidden', await layerOf(driver, 'work'));
    await driver.commit('base', 'work');
  });

  test('a transaction refuses it too', async ({ driver, root }) => {
    const running = driver.transaction((tx) => {
      const [mount] = tx.prepare('work');
      sh('mknod hidden c 0 0', mount?.source ?? '');
      tx.commit('base', 'work');
    });
    await expect(running).rejects.toMatchObject({ code: 'FAILED_PRECONDITION' });
    expect(await driver.exists('base')).toBe(false);
    // What a transaction leaves that was rolled back is not empty, and so stays for a check to find.
    sh('rm -r 1', join(root, 'snapshots'));
  });

  test('a layer that hides files of its parent is committed, also if it gets its parent only then', async ({
    driver,
    root,
  }) => {
    await driver.prepare('making base');
    sh('touch file', await layerOf(driver, 'making base'));
    await driver.commit('base', 'making base');
    await driver.prepare('above', 'base');
    sh('mknod file c 0 0', await layerOf(driver, 'above'));
    await driver.commit('without file', 'above');
    await driver.prepare('alone');
    sh('mknod file c 0 0', await layerOf(driver, 'alone'));
    await driver.commit('without file too', 'alone', { parent: 'base' });
    const { status, findings } = await checkStore(root);
    expect({ status, findings }).toEqual({ status: 'clean', findings: [] });
  });
});
