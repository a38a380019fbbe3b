import { execFileSync } from 'node:child_process';
import {
  closeSync,
  existsSync,
  openSync,
  readFileSync,
  readdirSync,
  renameSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { realpath } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { ensureDirSync } from 'fs-extra/esm';
import { describe, expect } from 'vitest';
import { attachMountAt } from '../../src/linux/namespace.ts';
import { mount, openMount, unmount, withMount } from '../../src/mount/index.ts';
import type { Mount } from '../../src/snapshot.ts';
import { test } from '../support/fixtures.ts';
import { layerOf, prepareOnLayers } from '../support/layers.ts';
import { isMountPoint, methodsHere } from '../support/mount.ts';
import { needs } from '../support/needs.ts';
import { startProcess } from '../support/process.ts';
import { sh } from '../support/tree.ts';
import { waitFor } from '../support/wait-for.ts';

const lacking = needs('root');
const refused = { code: 'FAILED_PRECONDITION' };

describe.skipIf(lacking)(`mount()${lacking}`, () => {
  test('mount() refuses a target that is missing, a file, a symbolic link, or a mount already', async ({
    driver,
    place,
    target,
  }) => {
    const mounts = await prepareOnLayers(driver, 1);
    const refuses = (path: string): Promise<void> =>
      expect(mount(mounts, path)).rejects.toMatchObject(refused);
    await refuses(join(place, 'missing'));
    writeFileSync(join(place, 'file'), '');
    await refuses(join(place, 'file'));
    symlinkSync(target, join(place, 'link'));
    await refuses(join(place, 'link'));
    await mount(mounts, target);
    await refuses(target);
    await unmount(target);
  });

  test('mount() and withMount() refuse wrong arguments', async ({ driver, target }) => {
    const mounts = await prepareOnLayers(driver, 1);
    const invalid = { code: 'INVALID_ARGUMENT' };
    await expect(mount(mounts, '')).rejects.toMatchObject(invalid);
    await expect(mount(mounts, 'a\0b')).rejects.toMatchObject(invalid);
    await expect(mount(mounts, 7 as unknown as string)).rejects.toThrow(TypeError);
    await expect(mount('mounts' as unknown as Mount[], target)).rejects.toThrow(TypeError);
    const strange = { type: 'tmpfs', source: 'tmpfs', options: [] } as unknown as Mount;
    await expect(mount([strange], target)).rejects.toMatchObject(invalid);
    const nul: Mount = { type: 'overlay', source: 'overlay', options: ['a\0b'] };
    await expect(mount([nul], target)).rejects.toMatchObject(invalid);
    await expect(withMount(mounts, undefined as unknown as () => void)).rejects.toThrow(TypeError);
  });

  test('mount() by an ordinary user is PERMISSION_DENIED, with advice', ({ target, checkout }) => {
    const script = `
      import { mount } from '${checkout}/dist/mount/index.js';
      const mounts = [{ type: 'bind', source: '/tmp', options: ['rbind'] }];
      const error = await mount(mounts, '${target}').catch((reason) => reason);
      console.log(JSON.stringify({ code: error.code, hint: error.hint }));`;
    sh('chmod 755 .', target);
    const printed = execFileSync(process.execPath, ['--input-type=module', '-e', script], {
      cwd: target,
      uid: 65534,
      gid: 65534,
      encoding: 'utf8',
    });
    expect(JSON.parse(printed)).toMatchObject({
      code: 'PERMISSION_DENIED',
      hint: expect.stringContaining('root') as string,
    });
  });
});

describe.skipIf(lacking)(`unmount()${lacking}`, () => {
  test('unmount() refuses a target on which nothing is mounted, or that is missing', async ({
    place,
    target,
  }) => {
    await expect(unmount(target)).rejects.toMatchObject(refused);
    await expect(unmount(join(place, 'missing'))).rejects.toMatchObject(refused);
  });

  test('unmount() of what is in use waits, then fails with EBUSY; it can be lazy', async ({
    driver,
    target,
  }) => {
    await mount(await prepareOnLayers(driver, 1), target);
    const fd = openSync(join(target, 'file'), 'w');
    await expect(unmount(target)).rejects.toMatchObject({ ...refused, message: /EBUSY/ });
    expect(isMountPoint(target)).toBe(true);
    await unmount(target, { lazy: true });
    expect(isMountPoint(target)).toBe(false);
    // It lives on in the open file, and so is not deleted.
    expect((await driver.remove('top')).deferred).toMatch(/uses it/);
    closeSync(fd);
    expect((await driver.cleanup()).deferred).toEqual([]);
  });
});

describe.skipIf(lacking)(`withMount()${lacking}`, () => {
  test('withMount() resolves to what its function returned, and always unmounts', async ({ driver }) => {
    const mounts = await prepareOnLayers(driver, 2);
    let seen = '';
    const result = await withMount(mounts, async (path) => {
      seen = path;
      return readFileSync(join(path, 'shared'), 'utf8');
    });
    expect(result).toBe('2');
    expect(seen.startsWith(tmpdir())).toBe(true);
    expect(existsSync(seen)).toBe(false);
    const failing = withMount(mounts, (path) => {
      seen = path;
      throw new Error('changed my mind');
    });
    await expect(failing).rejects.toThrow('changed my mind');
    expect(existsSync(seen)).toBe(false);
    const fd = await withMount(mounts, (path) => openSync(join(path, 'kept-open'), 'w'));
    closeSync(fd);
  });
});

describe.skipIf(lacking)(`openMount()${lacking}`, () => {
  test.for(methodsHere)(
    'openMount() by %s mounts on a descriptor, in no mount table',
    async (by, { driver }) => {
      const mounts = await prepareOnLayers(driver, 2);
      const before = readFileSync('/proc/self/mountinfo', 'utf8');
      const detached = await openMount(mounts, { by });
      expect(readFileSync('/proc/self/mountinfo', 'utf8')).toBe(before);
      writeFileSync(`${detached.path}/new`, 'x');
      expect(execFileSync('cat', ['shared'], { cwd: detached.path, encoding: 'utf8' })).toBe('2');
      expect((await driver.remove('top')).deferred).toMatch(/uses it/);
      await detached.close();
      await detached.close();
      expect((await driver.cleanup()).deferred).toEqual([]);
    },
  );

  test('a mount that openMount() made is gone when its process is killed', async ({ driver, undo }) => {
    const mounts = await prepareOnLayers(driver, 2);
    const script = `
      import { openMount } from '${join(import.meta.dirname, '../../dist/mount/index.js')}';
      const detached = await openMount(${JSON.stringify(mounts)});
      console.log('mounted at', detached.path);
      setInterval(() => {}, 1000);`;
    const args = ['--input-type=module', '-e', script];
    const holder = await startProcess('mounted', process.execPath, args);
    undo(() => holder.kill());
    expect((await driver.remove('top')).deferred).toMatch(/uses it/);
    await holder.kill();
    // The kernel takes it away in its own time.
    await waitFor('the mount to go', async () => (await driver.cleanup()).deferred.length === 0);
    expect(await driver.pendingRemovals()).toBe(0);
  });

  test.for(methodsHere)(
    'a mount that openMount() made by %s can be attached to a directory',
    async (by, { driver, target }) => {
      const detached = await openMount(await prepareOnLayers(driver, 2), { by });
      attachMountAt(detached.fd, target);
      await detached.close();
      writeFileSync(join(target, 'new'), 'x');
      expect(readFileSync(`${await layerOf(driver, 'top')}/new`, 'utf8')).toBe('x');
      await unmount(target);
    },
  );

  test.for(methodsHere)(
    'openMount() by %s leaves the working directory of the process shared by its threads',
    async (by, { driver, place, undo }) => {
      const directory = process.cwd();
      undo(() => process.chdir(directory));
      await using detached = await openMount(await prepareOnLayers(driver, 1), { by });
      process.chdir(place);
      // Another thread looks.
      expect(await realpath('.')).toBe(place);
      expect(existsSync(detached.path)).toBe(true);
    },
  );

  test.for(methodsHere)(
    'openMount() by %s refuses an overlay that is read-only, or of a missing layer, and leaves nothing open',
    async (by, { driver }) => {
      const mounts = await prepareOnLayers(driver, 2);
      const open = readdirSync('/proc/self/fd');
      const { directory } = await driver.stat('top');
      ensureDirSync(join(directory ?? '', 'work', 'work', 'a/b/c/d/e'));
      await expect(openMount(mounts, { by })).rejects.toThrow(/is read-only/);
      const layer = await layerOf(driver, 'layer-1');
      renameSync(layer, `${layer}-away`);
      await expect(openMount(mounts, { by })).rejects.toMatchObject({ code: 'DATA_LOSS' });
      renameSync(`${layer}-away`, layer);
      expect(readdirSync('/proc/self/fd')).toEqual(open);
    },
  );

  test('openMount() takes one mount exactly', async ({ driver }) => {
    const mounts = await prepareOnLayers(driver, 1);
    const invalid = { code: 'INVALID_ARGUMENT' };
    await expect(openMount([...mounts, ...mounts])).rejects.toMatchObject(invalid);
    await expect(openMount([])).rejects.toMatchObject(invalid);
  });
});
