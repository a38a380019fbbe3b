import { closeSync, openSync } from 'node:fs';
import { join } from 'node:path';
import { expect } from 'vitest';
import { HeldRoot } from '../../src/layers/held-root.ts';
import { MountGate } from '../../src/layers/mount-gate.ts';
import { tryLock } from '../../src/linux/file-calls.ts';
import { test } from '../support/fixtures.ts';
import { commitLayer, idsOnDisk } from '../support/layers.ts';
import { needs } from '../support/needs.ts';

const lacking = needs('root');

test('mounts may overlap, and drain() waits for all of them', async ({ driver: _driver, root }) => {
  const held = new HeldRoot(root);
  const gate = new MountGate(held);
  const first = await gate.enter();
  const second = await gate.enter();
  let drained = false;
  const draining = gate.drain().then((done) => (drained = done));
  first[Symbol.dispose]();
  await new Promise((resolve) => setImmediate(resolve));
  expect(drained).toBe(false);
  second[Symbol.dispose]();
  expect(await draining).toBe(true);
  const third = await gate.enter();
  third[Symbol.dispose]();
  held.close();
});

test('a deletion waits for a mount that is being made in another process', async ({ driver, root }) => {
  await commitLayer(driver, 'base');
  const fd = openSync(join(root, 'snapshots'), 'r');
  try {
    expect(tryLock(fd, { shared: true })).toBe(true);
    expect((await driver.delete('base')).deferred).toMatch(/being mounted/);
    expect(idsOnDisk(root)).toHaveLength(1);
  } finally {
    closeSync(fd);
  }
  expect((await driver.cleanup()).deferred).toEqual([]);
  expect(idsOnDisk(root)).toEqual([]);
});

test.skipIf(lacking)(
  `mount() of a view that is removed while it waits for a deletion in another process mounts nothing${lacking}`,
  async ({ driver, root, target }) => {
    await commitLayer(driver, 'base');
    await driver.view('v', 'base');
    const fd = openSync(join(root, 'snapshots'), 'r');
    expect(tryLock(fd)).toBe(true);
    let ended = false;
    const mounting = driver.mount('v', target).finally(() => (ended = true));
    const refused = expect(mounting).rejects.toMatchObject({ code: 'NOT_FOUND' });
    await driver.transaction((transaction) => {
      transaction.remove('v');
      transaction.delete('base');
    });
    expect(ended).toBe(false);
    closeSync(fd);
    await refused;
  },
);
