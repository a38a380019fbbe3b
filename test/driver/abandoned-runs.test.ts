import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect } from 'vitest';
import { OverlayDriver } from '../../src/index.ts';
import { DirectoryLock } from '../../src/layers/directory-lock.ts';
import { HeldRoot } from '../../src/layers/held-root.ts';
import { RUN_LABEL } from '../../src/layers/run-workspace.ts';
import { test as base } from '../support/fixtures.ts';
import { idsOnDisk } from '../support/layers.ts';
import { unmount, withMount } from '../support/mount.ts';
import { needs } from '../support/needs.ts';
import { sh } from '../support/tree.ts';
import { waitFor } from '../support/wait-for.ts';

const lacking = needs('root');

const test = base.extend<{
  /** Makes a workspace on "base" with the label of a run. */
  leave: (key: string, purpose?: string) => Promise<number>;
}>({
  leave: async ({ driver }, use) => {
    await driver.prepare('making');
    await driver.commit('base', 'making');
    await driver.cleanup();
    await use(async (key, purpose = 'throw-away') => {
      await driver.prepare(key, 'base', { labels: { [RUN_LABEL]: purpose } });
      return (await driver.stat(key)).id;
    });
  },
});

describe.skipIf(lacking)(`workspaces that killed runs have left${lacking}`, () => {
  test('cleanup() removes those to be thrown away, and no others', async ({ driver, root, leave }) => {
    await leave('left');
    await leave('also left');
    await leave('kept', 'commit');
    await leave('odd', 'something else');
    await driver.prepare('plain', 'base');
    await driver.view('view', 'base', { labels: { [RUN_LABEL]: 'throw-away' } });
    expect(await driver.cleanup()).toEqual({ removed: 2, deferred: [] });
    const left: string[] = [];
    await driver.active(({ name }) => void left.push(name));
    expect(left).toEqual(['kept', 'odd', 'plain', 'view']);
    expect(idsOnDisk(root)).toHaveLength(4);
  });

  test('cleanup() leaves one whose process lives, also in another driver', async ({
    driver,
    root,
    leave,
  }) => {
    const id = await leave('held');
    const held = new HeldRoot(root);
    const lock = DirectoryLock.takeLayer(held, id);
    held.close();
    await using other = await OverlayDriver.open(root, { asyncRemove: true, backups: false });
    expect(await other.cleanup()).toEqual({ removed: 0, deferred: [] });
    // It can be mounted meanwhile.
    await withMount(await driver.mounts('held'), async () => {});
    expect(await driver.exists('held')).toBe(true);
    lock?.release();
    expect(await other.cleanup()).toEqual({ removed: 1, deferred: [] });
  });

  test('cleanup() leaves one that is mounted, in whatever way', async ({ driver, place, target, leave }) => {
    await leave('mounted');
    await driver.mount('mounted', target);
    expect(await driver.cleanup()).toEqual({ removed: 0, deferred: [] });
    await driver.unmount(target);
    const opened = await driver.openMount('mounted');
    expect(await driver.cleanup()).toEqual({ removed: 0, deferred: [] });
    await opened.close();
    const bound = join(place, 'bound');
    mkdirSync(bound);
    sh(`mount --bind '${(await driver.stat('mounted')).directory}/fs' ${bound}`, place);
    expect(await driver.cleanup()).toEqual({ removed: 0, deferred: [] });
    unmount(bound);
    await waitFor('the workspace to be removed', async () => (await driver.cleanup()).removed === 1);
  });

  test('cleanup() leaves one whose layer is lost, which is for a check to say', async ({
    driver,
    root,
    leave,
  }) => {
    const id = await leave('damaged');
    sh(`mv ${id}/fs ${id}/away`, join(root, 'snapshots'));
    expect(await driver.cleanup()).toEqual({ removed: 0, deferred: [] });
    sh(`mv ${id}/away ${id}/fs`, join(root, 'snapshots'));
  });

  test('open() removes them without being asked', async ({ driver, root, leave }) => {
    await leave('left');
    await using next = await OverlayDriver.open(root, { backups: false });
    await waitFor('the workspace to be removed', () => idsOnDisk(root).length === 1);
    expect(await next.exists('left')).toBe(false);
    expect(await driver.exists('left')).toBe(false);
  });

  test('open() and close() at once remove them or leave them, and nothing else', async ({
    driver,
    root,
    leave,
  }) => {
    await leave('left');
    await (await OverlayDriver.open(root, { backups: false })).close();
    await driver.cleanup();
    expect(await driver.exists('left')).toBe(false);
    expect(await driver.exists('base')).toBe(true);
  });
});
