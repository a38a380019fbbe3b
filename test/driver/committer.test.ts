import { execFileSync } from 'node:child_process';
import { mkdirSync, readdirSync, renameSync, symlinkSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect } from 'vitest';
import { MetadataStore, OverlayDriver, type Progress } from '../../src/index.ts';
import { test } from '../support/fixtures.ts';
import { commitLayer, idsOnDisk, layerOf } from '../support/layers.ts';
import { mount, unmount, withMount } from '../support/mount.ts';
import { needs } from '../support/needs.ts';
import { sh } from '../support/tree.ts';

const lacking = needs('root');

describe('checkpoint()', () => {
  test('checkpoint() tells how far it is, and leaves nothing behind when it is aborted', async ({
    driver,
    root,
  }) => {
    await driver.prepare('k');
    writeFileSync(join(await layerOf(driver, 'k'), 'large'), Buffer.alloc(64 * 1024 * 1024, 'x'));
    const seen: Progress[] = [];
    await driver.checkpoint('n', 'k', { onProgress: (progress) => seen.push(progress) });
    expect([...new Set(seen.map(({ phase }) => phase))]).toEqual(['copying', 'measuring', 'syncing']);
    const last = seen.at(-1);
    expect(last).toEqual({ phase: 'syncing', inodes: 2, bytes: (await driver.usage('n')).size });
    await driver.delete('n');

    const abort = new AbortController();
    const reason = new Error('enough');
    const onProgress = ({ bytes }: Progress): void => {
      if (bytes > 0) abort.abort(reason);
    };
    await expect(driver.checkpoint('n', 'k', { signal: abort.signal, onProgress })).rejects.toBe(reason);
    expect(idsOnDisk(root)).toEqual(['1']);
    expect(await driver.cleanup()).toEqual({ removed: 0, deferred: [] });
    expect(await driver.exists('n')).toBe(false);
    await driver.checkpoint('n', 'k');
  });

  test('checkpoint() and commit() of a layer that is gone, or a symbolic link, are DATA_LOSS', async ({
    driver,
    root,
  }) => {
    await driver.prepare('k');
    const layer = await layerOf(driver, 'k');
    renameSync(layer, `${layer}-away`);
    const code = { code: 'DATA_LOSS' };
    await expect(driver.checkpoint('n', 'k')).rejects.toMatchObject(code);
    await expect(driver.commit('n', 'k')).rejects.toMatchObject(code);
    symlinkSync('/etc', layer);
    await expect(driver.checkpoint('n', 'k')).rejects.toMatchObject(code);
    await expect(driver.commit('n', 'k')).rejects.toMatchObject(code);
    expect(idsOnDisk(root)).toEqual(['1']);
    expect((await driver.stat('k')).kind).toBe('active');
    await driver.remove('k');
  });

  test('checkpoint() whose key is removed or committed meanwhile fails, and leaves nothing behind', async ({
    driver,
    root,
  }) => {
    const metadata = await MetadataStore.open(join(root, 'metadata.db'));
    const ends = [(): unknown => metadata.remove('k'), (): unknown => metadata.commit('c', 'k')];
    for (const end of ends) {
      await driver.prepare('k');
      const onProgress = ({ phase, inodes }: Progress): void => {
        if (phase === 'measuring' && inodes === 0) end();
      };
      await expect(driver.checkpoint('n', 'k', { onProgress })).rejects.toMatchObject({ code: 'NOT_FOUND' });
    }
    metadata.close();
    await driver.cleanup();
    expect(idsOnDisk(root)).toHaveLength(1);
    await driver.delete('c');
  });

  test.skipIf(lacking)(
    `a mount stays valid over checkpoint() of what is mounted${lacking}`,
    async ({ driver, target, undo }) => {
      mount(await driver.prepare('k'), target);
      undo(() => unmount(target));
      for (const name of ['a', 'b', 'c']) {
        writeFileSync(join(target, name), name);
        await driver.checkpoint(`with ${name}`, 'k');
      }
      expect(readdirSync(await layerOf(driver, 'with b'))).toEqual(['a', 'b']);
      expect(readdirSync(target)).toEqual(['a', 'b', 'c']);
    },
  );
});

describe('commit()', () => {
  test('commit() is INVALID_ARGUMENT with an unknown value of inUse', async ({ driver }) => {
    await driver.prepare('k');
    await expect(driver.commit('n', 'k', { inUse: 'whatever' as 'allow' })).rejects.toMatchObject({
      code: 'INVALID_ARGUMENT',
    });
  });

  test('commit() with seal: "content" fails if a file gets shorter while it is read', async ({ root }) => {
    await using driver = await OverlayDriver.open(root, { seal: 'content', backups: false });
    await driver.prepare('k');
    const file = join(await layerOf(driver, 'k'), 'file');
    writeFileSync(file, Buffer.alloc(8 * 1024 * 1024, 'x'));
    const onProgress = ({ bytes }: Progress): void => {
      // More than the root of the layer takes: some of the file has been read.
      if (bytes > 100_000) truncateSync(file, 1000);
    };
    await expect(driver.commit('n', 'k', { onProgress })).rejects.toMatchObject({
      code: 'FAILED_PRECONDITION',
    });
    expect((await driver.stat('k')).kind).toBe('active');
    await driver.commit('n', 'k');
  });

  test.skipIf(lacking)(
    `commit() by a user who may not read the layer is PERMISSION_DENIED${lacking}`,
    ({ place, checkout }) => {
      const root = join(place, 'of-the-user');
      mkdirSync(root);
      sh('chown 65534:65534 .', root);
      const program = [`${checkout}/test/support/commit-unreadable.mjs`, root];
      const printed = execFileSync(process.execPath, program, {
        cwd: root,
        uid: 65534,
        gid: 65534,
        encoding: 'utf8',
      });
      const refused = { code: 'PERMISSION_DENIED', kind: 'active' };
      expect(JSON.parse(printed)).toEqual({ directory: refused, file: refused, afterwards: 'committed' });
    },
  );

  test.skipIf(lacking)(
    `a mount goes on showing a layer after commit() of it${lacking}`,
    async ({ driver, target }) => {
      await commitLayer(driver, 'base');
      await driver.prepare('k', 'base');
      await withMount(await driver.mounts('k'), async (tree) => {
        sh('echo changed > file; rm -r d', tree);
        await driver.commit('n', 'k');
        expect(sh('cat file; ls', tree)).toBe('changed\nfile\n');
        mount(await driver.prepare('next', 'n'), target);
        expect(sh('cat file; ls', target)).toBe('changed\nfile\n');
        unmount(target);
      });
    },
  );
});

describe('close()', () => {
  test.for(['checkpoint', 'commit'] as const)(
    'close() waits for a %s() that has begun',
    async (method, { driver, root }) => {
      await driver.prepare('k');
      let closing: Promise<void> | undefined;
      const onProgress = (): void => void (closing ??= driver.close());
      const info = await driver[method]('n', 'k', { onProgress });
      await closing;
      await using reopened = await OverlayDriver.open(root, { backups: false });
      expect(await reopened.stat('n')).toEqual(info);
    },
  );
});
