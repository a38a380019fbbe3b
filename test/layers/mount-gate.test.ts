import { closeSync, openSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect } from 'vitest';
import { OverlayDriver } from '../../src/index.ts';
import { Layout } from '../../src/layers/layout.ts';
import { MountGate } from '../../src/layers/mount-gate.ts';
import { tryLock } from '../../src/linux/file-calls.ts';
import { test } from '../support/fixtures.ts';
import { commitLayer, idsOnDisk } from '../support/layers.ts';
import { unmount } from '../support/mount.ts';
import { needs } from '../support/needs.ts';
import { amount } from '../support/sample.ts';

const lacking = needs('root');

/** How often a view is mounted and removed, together with its parent, at the same moment. */
const ROUNDS = amount({ some: 40, others: 200, all: 2000 });

test('mounts may overlap, and drain() waits for all of them', async ({ driver: _driver, root }) => {
  const gate = new MountGate(new Layout(root));
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

describe.skipIf(lacking)(`a mount beside deletions${lacking}`, () => {
  test('a view that is mounted while it is removed together with its parent has all of its files', async ({
    driver,
    root,
    target,
  }) => {
    await using other = await OverlayDriver.open(root, { durability: 'metadata', backups: false });
    const outcomes = new Set<string>();
    const turns = async (count: number): Promise<void> => {
      for (let turn = 0; turn < count; turn += 1) await new Promise((resolve) => setImmediate(resolve));
    };
    for (let round = 0; round < ROUNDS; round += 1) {
      await commitLayer(driver, 'below');
      await commitLayer(driver, 'base', 'below', 'echo x > other');
      await driver.view('v', 'base');
      const mount = async (): Promise<string> => {
        // Each round the mount begins a few turns of the event loop later.
        await turns(round % 20);
        try {
          await other.mount('v', target);
        } catch (error) {
          expect(error).toMatchObject({ code: 'NOT_FOUND' });
          return 'refused';
        }
        expect(readFileSync(join(target, 'd/x'), 'utf8')).toBe('x\n');
        expect(readFileSync(join(target, 'other'), 'utf8')).toBe('x\n');
        unmount(target);
        return 'mounted';
      };
      const mounting = mount();
      await driver.remove('v');
      for (const name of ['base', 'below']) await driver.delete(name);
      outcomes.add(await mounting);
      await driver.cleanup();
      expect(idsOnDisk(root)).toEqual([]);
    }
    expect([...outcomes].toSorted()).toEqual(['mounted', 'refused']);
  });
});
