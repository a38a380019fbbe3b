import { closeSync, mkdirSync, openSync, readdirSync, symlinkSync } from 'node:fs';
import { release } from 'node:os';
import { join } from 'node:path';
import { describe, expect } from 'vitest';
import { isUpperInUse, needsUserxattr, takesDetachedLayers } from '../../src/linux/probe.ts';
import { mount, openMount, unmount } from '../../src/mount/mount.ts';
import { test as base } from '../support/fixtures.ts';
import { mountPointsNow } from '../support/mount-points.ts';
import { needs } from '../support/needs.ts';
import { sh } from '../support/tree.ts';

const lacking = needs('root');

const test = base.extend<{
  /** The mounts of an overlay of `lower`, `upper` and `work` in `place`. */
  overlay: Parameters<typeof mount>[0];
}>({
  overlay: async ({ place }, use) => {
    const names = ['lower', 'upper', 'work'];
    for (const name of names) mkdirSync(join(place, name));
    const options = names.map((name) => `${name}dir=${join(place, name)}`);
    await use([{ type: 'overlay', source: 'overlay', options }]);
  },
});

describe.skipIf(lacking)(`what the kernel is asked${lacking}`, () => {
  test('isUpperInUse() is true while a directory is the upper or work directory of an overlay', async ({
    place,
    target,
    overlay,
  }) => {
    const inUse = (): Promise<(boolean | undefined)[]> =>
      Promise.all(['lower', 'upper', 'work'].map((name) => isUpperInUse(join(place, name))));
    expect(await inUse()).toEqual([false, false, false]);
    await mount(overlay, target);
    expect(await inUse()).toEqual([false, true, true]);
    await unmount(target);
    expect(await inUse()).toEqual([false, false, false]);
  });

  test('isUpperInUse() is true for an overlay that is mounted nowhere', async ({ place, overlay }) => {
    const detached = await openMount(overlay);
    expect(await isUpperInUse(join(place, 'upper'))).toBe(true);
    await detached.close();
    expect(await isUpperInUse(join(place, 'upper'))).toBe(false);
  });

  test('isUpperInUse() is true for an overlay that lives on in an open file', async ({
    place,
    target,
    overlay,
  }) => {
    await mount(overlay, target);
    sh('touch file', target);
    const fd = openSync(join(target, 'file'), 'r');
    await unmount(target, { lazy: true });
    expect(await isUpperInUse(join(place, 'upper'))).toBe(true);
    closeSync(fd);
    expect(await isUpperInUse(join(place, 'upper'))).toBe(false);
  });

  test('isUpperInUse() follows no symbolic link, and fails for a missing directory', async ({
    place,
    overlay: _made,
  }) => {
    symlinkSync('upper', join(place, 'link'));
    await expect(isUpperInUse(join(place, 'link'))).rejects.toThrow(/ENOTDIR|ELOOP/);
    await expect(isUpperInUse(join(place, 'missing'))).rejects.toThrow(/ENOENT/);
  });

  test('isUpperInUse() leaves no mount, no descriptor and no trace in the directory', async ({
    place,
    overlay: _made,
  }) => {
    const state = (): unknown => [
      mountPointsNow().length,
      readdirSync('/proc/self/fd').length,
      sh('find upper -printf "%P %i %T@ %C@\\n"', place),
    ];
    state();
    const before = state();
    await Promise.all(Array.from({ length: 20 }, () => isUpperInUse(join(place, 'upper'))));
    await expect(isUpperInUse(join(place, 'missing'))).rejects.toThrow();
    expect(state()).toEqual(before);
  });

  test('takesDetachedLayers() is so from Linux 6.15 on', async () => {
    const [major = 0, minor = 0] = release().split('.').map(Number);
    expect(await takesDetachedLayers()).toBe(major > 6 || (major === 6 && minor >= 15));
  });

  test('needsUserxattr() is false outside of user namespaces', async () => {
    expect(await needsUserxattr()).toBe(false);
  });
});
