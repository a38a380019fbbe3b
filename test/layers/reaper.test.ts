import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, readdirSync, renameSync, statSync, symlinkSync } from 'node:fs';
import { join } from 'node:path';
import { ensureDirSync, outputFileSync } from 'fs-extra/esm';
import { describe, expect } from 'vitest';
import { toSettings } from '../../src/driver/options.ts';
import { openResources } from '../../src/driver/resources.ts';
import { OverlayDriver } from '../../src/index.ts';
import { test } from '../support/fixtures.ts';
import { commitLayer, idsOnDisk, layerOf } from '../support/layers.ts';
import { mount, unmount, withMount } from '../support/mount.ts';
import { needs } from '../support/needs.ts';
import { startProcess } from '../support/process.ts';
import { sh } from '../support/tree.ts';
import { waitFor } from '../support/wait-for.ts';

const lacking = needs('root');

function run(command: string, ...args: string[]): string {
  return execFileSync(command, args, { encoding: 'utf8', stdio: 'pipe' });
}

describe.skipIf(lacking)(`what is in use${lacking}`, () => {
  interface Places {
    readonly layer: string;
    readonly target: string;
    /** An empty directory outside the store. */
    readonly outside: string;
  }
  /** Ways to use a layer; each gives how that is ended. */
  const uses: Readonly<Record<string, (places: Places) => Promise<() => unknown> | (() => unknown)>> = {
    'is bound elsewhere'({ layer, target }) {
      run('mount', '--bind', layer, target);
      return () => unmount(target);
    },
    'has a bind of the same filesystem below it'({ layer, outside }) {
      mkdirSync(`${layer}/below`);
      outputFileSync(join(outside, 'precious'), 'x');
      run('mount', '--bind', outside, `${layer}/below`);
      return () => unmount(`${layer}/below`);
    },
    'is the upper directory of an overlay'({ layer, target, outside }) {
      const options = [`lowerdir=${outside}`, `upperdir=${layer}`, `workdir=${layer}/../work`];
      mount([{ type: 'overlay', source: 'overlay', options }], target);
      return () => unmount(target);
    },
    'is a lower directory of an overlay'({ layer, target, outside }) {
      mount([{ type: 'overlay', source: 'overlay', options: [`lowerdir=${outside}:${layer}`] }], target);
      return () => unmount(target);
    },
    async 'is bound in another mount namespace'({ layer, target }) {
      const script = `mount --bind '${layer}' '${target}' && echo ready && exec sleep 1000`;
      const args = ['-m', '--propagation', 'private', 'sh', '-c', script];
      const holder = await startProcess('ready', 'unshare', args);
      return () => holder.kill();
    },
  };

  test.for(Object.entries(uses))(
    'remove() defers the deletion of a layer that %s',
    async ([, start], { driver, place, root, target, undo }) => {
      await driver.prepare('k');
      const layer = await layerOf(driver, 'k');
      outputFileSync(`${layer}/file`, 'x');
      const outside = join(place, 'outside');
      mkdirSync(outside);
      let end: (() => unknown) | undefined = await start({ layer, target, outside });
      undo(() => end?.());
      expect((await driver.remove('k')).deferred).toMatch(/mount|uses it/);
      expect(readFileSync(`${layer}/file`, 'utf8')).toBe('x');
      expect((await driver.cleanup()).deferred).toHaveLength(1);
      expect(await driver.exists('k')).toBe(false);
      await end();
      end = undefined;
      expect(await driver.cleanup()).toEqual({ removed: 1, deferred: [] });
      expect(idsOnDisk(root)).toEqual([]);
      expect(await driver.cleanup()).toEqual({ removed: 0, deferred: [] });
    },
  );

  test('remove() deletes nothing of another filesystem that is mounted below a layer', async ({
    driver,
    undo,
  }) => {
    await driver.prepare('k');
    const below = `${await layerOf(driver, 'k')}/below`;
    mkdirSync(below);
    run('mount', '-t', 'tmpfs', 'tmpfs', below);
    let mounted = true;
    undo(() => mounted && unmount(below));
    outputFileSync(`${below}/precious`, 'x');
    expect((await driver.remove('k')).deferred).toMatch(/mount point/);
    expect(readFileSync(`${below}/precious`, 'utf8')).toBe('x');
    unmount(below);
    mounted = false;
    expect((await driver.cleanup()).removed).toBe(1);
  });

  test('cleanup() deletes what could not be deleted before, which stays in the journal', async ({
    driver,
    root,
    undo,
  }) => {
    await driver.prepare('k');
    const snapshots = join(root, 'snapshots');
    run('chattr', '+i', snapshots);
    undo(() => run('chattr', '-i', snapshots));
    expect((await driver.remove('k')).deferred).toMatch(/"1" cannot be deleted: .* immutable or append-only/);
    run('chattr', '-i', snapshots);
    expect((await driver.cleanup()).removed).toBe(1);
  });

  test('cleanup() deletes what a volatile mount left in the work directory', async ({ driver }) => {
    await commitLayer(driver, 'base', null, '');
    await driver.prepare('k', 'base');
    const [overlay] = await driver.mounts('k');
    const options = [...(overlay?.options ?? []), 'volatile'];
    await withMount([{ type: 'overlay', source: 'overlay', options }], async (tree) =>
      outputFileSync(join(tree, 'file'), 'x'),
    );
    const work = join((await driver.stat('k')).directory ?? '', 'work', 'work');
    expect(statSync(work).mode & 0o777).toBe(0);
    expect(existsSync(join(work, 'incompat/volatile'))).toBe(true);
    const { directory } = await driver.commit('n', 'k');
    await driver.cleanup();
    expect(readdirSync(directory ?? '')).toEqual(['fs']);
  });
});

describe('deletion', () => {
  test('remove() does not follow a symbolic link in a layer, nor one in the place of a layer', async ({
    driver,
    place,
    root,
  }) => {
    const outside = join(place, 'outside');
    outputFileSync(join(outside, 'precious'), 'x');
    await driver.prepare('k');
    symlinkSync(outside, `${await layerOf(driver, 'k')}/link`);
    await driver.prepare('l');
    const layer = await layerOf(driver, 'l');
    renameSync(layer, `${layer}-away`);
    symlinkSync(outside, layer);
    expect(await driver.remove('k')).toEqual({});
    expect(await driver.remove('l')).toEqual({});
    expect(idsOnDisk(root)).toEqual([]);
    expect(readdirSync(outside)).toEqual(['precious']);
  });

  test('cleanup() deletes only what the removal journal names', async ({ driver, root }) => {
    const stray = join(root, 'snapshots/1000');
    ensureDirSync(join(stray, 'fs'));
    await driver.prepare('k');
    await driver.remove('k');
    await driver.cleanup();
    expect(idsOnDisk(root)).toEqual(['1000']);
    run('rm', '-r', stray);
  });

  test.skipIf(lacking)(
    `remove() by an ordinary user deletes directories that he made unwritable${lacking}`,
    ({ place, checkout }) => {
      const root = join(place, 'of-the-user');
      mkdirSync(root);
      run('chown', '65534:65534', root);
      const script = `
        import { OverlayDriver } from '${checkout}/dist/index.js';
        import { execFileSync } from 'node:child_process';
        const driver = await OverlayDriver.open('${root}');
        await driver.prepare('k');
        const { directory } = await driver.stat('k');
        execFileSync('sh', ['-c', 'mkdir -p a/b c d/e && touch a/b/f && chmod 500 a/b a && chmod 000 c && chmod 400 d'], { cwd: directory + '/fs' });
        console.log(JSON.stringify(await driver.remove('k')));
        await driver.close();`;
      const printed = execFileSync(process.execPath, ['--input-type=module', '-e', script], {
        cwd: root,
        uid: 65534,
        gid: 65534,
        encoding: 'utf8',
      });
      expect(JSON.parse(printed)).toEqual({});
      expect(idsOnDisk(root)).toEqual([]);
    },
  );

  test('open() goes on with a deletion that was interrupted', async ({ driver, root }) => {
    for (const key of ['a', 'b', 'c']) {
      await driver.prepare(key);
      sh(`mkdir $(seq 50) && touch $(seq -f 'f%g' 50)`, await layerOf(driver, key));
    }
    await driver.prepare('kept');
    await using lazy = await OverlayDriver.open(root, { asyncRemove: true, backups: false });
    for (const key of ['a', 'b', 'c']) await lazy.remove(key);
    // As a kill in the middle of it leaves it.
    run('rm', '-r', join(root, 'snapshots/1/fs/7'), join(root, 'snapshots/2/fs'));
    expect(idsOnDisk(root)).toEqual(['1', '2', '3', '4']);
    await using next = await OverlayDriver.open(root, { backups: false });
    await waitFor('the directories of what was removed to be deleted', () => idsOnDisk(root).length === 1);
    expect(idsOnDisk(root)).toEqual(['4']);
    expect(await next.exists('kept')).toBe(true);
  });

  test('close() does not wait for all deletions that an open() went on with', async ({ driver, root }) => {
    await using lazy = await OverlayDriver.open(root, { asyncRemove: true, backups: false });
    for (let i = 0; i < 200; i += 1) await driver.prepare(`k${i}`);
    for (let i = 0; i < 200; i += 1) await lazy.remove(`k${i}`);
    const next = await OverlayDriver.open(root, { backups: false });
    await new Promise((resolve) => setImmediate(resolve));
    await next.close();
    expect(idsOnDisk(root).length).toBeGreaterThan(0);
    expect((await lazy.cleanup()).deferred).toEqual([]);
    expect(idsOnDisk(root)).toEqual([]);
  });

  test('remove() with asyncRemove leaves all deletion to cleanup()', async ({ driver, root }) => {
    await using other = await OverlayDriver.open(root, { asyncRemove: true, backups: false });
    await other.prepare('k');
    await other.prepare('l');
    await other.commit('n', 'l');
    expect(await other.remove('k')).toEqual({});
    expect(idsOnDisk(root)).toEqual(['1', '2']);
    expect(await driver.cleanup()).toEqual({ removed: 2, deferred: [] });
    expect(idsOnDisk(root)).toEqual(['2']);
  });

  test('remove() deletes a thousand directories side by side and two thousand files', async ({
    driver,
    root,
  }) => {
    await driver.prepare('k');
    sh(`mkdir $(seq 1000) && touch $(seq -f 'f%g' 2000)`, await layerOf(driver, 'k'));
    expect((await driver.usage('k')).inodes).toBe(3001);
    expect(await driver.remove('k')).toEqual({});
    expect(idsOnDisk(root)).toEqual([]);
  });
});

describe.skipIf(lacking)(`removals in the background${lacking}`, () => {
  async function prepareMany(driver: OverlayDriver, root: string, count: number): Promise<void> {
    await driver.transaction((tx) => {
      for (let i = 0; i < count; i += 1) tx.prepare(`k${i}`);
    });
    for (const id of idsOnDisk(root)) outputFileSync(join(root, 'snapshots', id, 'fs/a/b/file'), 'x');
  }

  describe('with asyncRemove: "background"', () => {
    test.override({ driverOptions: { asyncRemove: 'background', backups: false } });

    test('remove() in the background resolves once the row is gone, and deletes later', async ({
      driver,
      root,
    }) => {
      await prepareMany(driver, root, 50);
      const results = await Promise.all(Array.from({ length: 50 }, (_, i) => driver.remove(`k${i}`)));
      expect(results).toEqual(results.map(() => ({})));
      expect(await driver.exists('k0')).toBe(false);
      await waitFor('the directories to be deleted', () => idsOnDisk(root).length === 0);
      await driver.cleanup();
      expect(await driver.pendingRemovals()).toBe(0);
    });

    test('open() goes on with the removals that close() left in the background', async ({ driver, root }) => {
      await prepareMany(driver, root, 200);
      await driver.transaction((tx) => {
        for (let i = 0; i < 200; i += 1) tx.remove(`k${i}`);
      });
      await driver.close();
      expect(idsOnDisk(root).length).toBeGreaterThan(0);
      await using next = await OverlayDriver.open(root, { asyncRemove: 'background', backups: false });
      await waitFor('the directories to be deleted', () => idsOnDisk(root).length === 0);
      expect(await next.cleanup()).toMatchObject({ deferred: [] });
    });
  });

  describe('with asyncRemove: true', () => {
    test.override({ driverOptions: { asyncRemove: true, backups: false } });

    test('cleanup() that is aborted deletes nothing, and the next one all', async ({ driver, root }) => {
      await prepareMany(driver, root, 50);
      await Promise.all(Array.from({ length: 50 }, (_, i) => driver.remove(`k${i}`)));
      expect(await driver.pendingRemovals()).toBe(50);
      const stopping = new AbortController();
      stopping.abort(new Error('enough'));
      await expect(driver.cleanup({ signal: stopping.signal })).rejects.toThrow('enough');
      expect(idsOnDisk(root)).toHaveLength(50);
      expect(await driver.cleanup()).toEqual({ removed: 50, deferred: [] });
      expect(existsSync(join(root, 'snapshots/1'))).toBe(false);
    });
  });
});

test('settle() waits for another that is under way, which may have taken over its removals', async ({
  root,
}) => {
  const resources = await openResources(root, toSettings({ asyncRemove: true, backups: false }));
  const { access, reader, reaper, writer } = resources;
  await access.write('preparing', () =>
    writer.create({ kind: 'active', key: 'k', parent: null, labels: {}, volatileBoot: null }),
  );
  await reaper.reap(await access.write('removing', () => writer.remove('k')));
  const first = reaper.settle();
  await reaper.settle();
  expect(reader.pendingRemovals()).toBe(0);
  await first;
  await resources.close();
});
