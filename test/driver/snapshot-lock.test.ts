import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect } from 'vitest';
import { OverlayDriver } from '../../src/index.ts';
import { DirectoryLock } from '../../src/layers/directory-lock.ts';
import { HeldRoot } from '../../src/layers/held-root.ts';
import { test } from '../support/fixtures.ts';
import { commitLayer, idsOnDisk, layerOf } from '../support/layers.ts';
import { unmount } from '../support/mount.ts';
import { needs } from '../support/needs.ts';
import { amount } from '../support/sample.ts';

/** How often a mount and a commit of one key are begun at the same moment. */
const ROUNDS = amount({ some: 40, others: 200, all: 2000 });

const lacking = needs('root');

describe.skipIf(lacking)(`one lock a snapshot${lacking}`, () => {
  test('a layer that is committed as not in use cannot be written to through a mount made meanwhile', async ({
    driver,
    root,
    target,
  }) => {
    await using other = await OverlayDriver.open(root, { durability: 'metadata', backups: false });
    await commitLayer(driver, 'base');
    let committed = 0;
    for (let round = 0; round < ROUNDS; round += 1) {
      const key = `k${round}`;
      await driver.prepare(key, 'base');
      const commit = driver.commit(`n${round}`, key);
      // Each round the mount is begun a few turns of the event loop later.
      for (let turn = 0; turn < round % 20; turn += 1) await new Promise((resolve) => setImmediate(resolve));
      const [committing, mounting] = await Promise.allSettled([commit, other.mount(key, target)]);
      if (committing.status === 'rejected') throw committing.reason;
      committed += 1;
      if (mounting.status === 'rejected') {
        expect(mounting.reason).toMatchObject({ code: 'NOT_FOUND' });
        continue;
      }
      expect(committing.value.inUse).toBe(true);
      unmount(target);
    }
    expect(committed).toBe(ROUNDS);
    const { status, findings } = await driver.check();
    expect({ status, errors: findings.filter(({ severity }) => severity === 'error') }).toEqual({
      status: 'clean',
      errors: [],
    });
  });

  test('mount() waits until a checkpoint has copied the layer', async ({ driver, root, target }) => {
    await using other = await OverlayDriver.open(root, { backups: false });
    await commitLayer(driver, 'base');
    await driver.prepare('k', 'base');
    writeFileSync(join(await layerOf(driver, 'k'), 'file'), 'x');
    let mounting: Promise<void> | undefined;
    let mounted = false;
    let mountedMeanwhile = false;
    const mount = async (): Promise<void> => {
      await other.mount('k', target);
      mounted = true;
    };
    await driver.checkpoint('n', 'k', {
      onProgress: () => {
        mounting ??= mount();
        mountedMeanwhile ||= mounted;
      },
    });
    await mounting;
    expect(mountedMeanwhile).toBe(false);
    expect(readFileSync(join(target, 'file'), 'utf8')).toBe('x');
    await driver.unmount(target);
  });

  test('mount() and commit() are UNAVAILABLE while somebody keeps the lock, and a deletion waits', async ({
    root,
    target,
  }) => {
    await using driver = await OverlayDriver.open(root, { busyTimeout: 50, backups: false });
    await commitLayer(driver, 'base');
    await driver.prepare('k', 'base');
    const { id } = await driver.stat('k');
    const held = new HeldRoot(root);
    const lock = DirectoryLock.takeNew(held, id);
    held.close();
    for (const attempt of [
      () => driver.mount('k', target),
      () => driver.commit('n', 'k'),
      () => driver.checkpoint('n', 'k'),
      () => driver.seal('k'),
    ]) {
      await expect(attempt()).rejects.toMatchObject({ code: 'UNAVAILABLE' });
    }
    const signal = AbortSignal.abort(new Error('not any more'));
    await expect(driver.commit('n', 'k', { signal })).rejects.toThrow('not any more');
    const { deferred } = await driver.remove('k');
    expect(deferred).toMatch(/by somebody else/);
    expect(idsOnDisk(root)).toContain(String(id));
    lock.release();
    await expect(driver.cleanup()).resolves.toEqual({ removed: 1, deferred: [] });
  });

  test('of two mounts of one workspace at the same time, one succeeds', async ({
    driver,
    root,
    place,
    target,
  }) => {
    await using other = await OverlayDriver.open(root, { backups: false });
    await commitLayer(driver, 'base');
    await driver.prepare('k', 'base');
    const second = join(place, 'second');
    mkdirSync(second);
    const results = await Promise.allSettled([driver.mount('k', target), other.mount('k', second)]);
    expect(results.map(({ status }) => status).toSorted()).toEqual(['fulfilled', 'rejected']);
    const failed = results.find((result) => result.status === 'rejected');
    expect(failed?.reason).toMatchObject({ code: 'FAILED_PRECONDITION' });
    await driver.unmount(results[0].status === 'fulfilled' ? target : second);
  });
});
