import { mkdirSync, readFileSync, readdirSync, renameSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { ensureDirSync } from 'fs-extra/esm';
import { describe, expect } from 'vitest';
import { OverlayDriver } from '../../src/index.ts';
import { mount, openMount, unmount } from '../../src/mount/index.ts';
import type { Mount } from '../../src/snapshot.ts';
import { test } from '../support/fixtures.ts';
import { layerOf, prepareOnLayers } from '../support/layers.ts';
import { isMountPoint, methodsHere } from '../support/mount.ts';
import { needs } from '../support/needs.ts';
import { assertWhole } from '../support/store.ts';
import { sh } from '../support/tree.ts';

const lacking = needs('root');
const options = { durability: 'metadata', backups: false } as const;

describe.skipIf(lacking).each(methodsHere)(`an overlay by %s${lacking}`, (by) => {
  test.override({ driverOptions: options });

  const odd = [
    'a b',
    'a:b',
    'a,b',
    'a\\b',
    'a\\:b,',
    'line\nbreak',
    'tab\tbed',
    'é\u{1F600}',
    'q\'"uote',
    '%s#',
  ];
  test.for(odd)(`mount() by ${by} mounts a store at %j`, async (name, { place, target }) => {
    const root = join(place, name);
    await using driver = await OverlayDriver.open(root, options);
    await mount(await prepareOnLayers(driver, 3), target, { by });
    expect(sh('cat own-1 own-3 shared; rm own-2; echo new > shared; ls', target)).toBe(
      '133own-1\nown-3\nshared\n',
    );
    await unmount(target);
    const layer = await layerOf(driver, 'top');
    expect(readFileSync(`${layer}/shared`, 'utf8')).toBe('new\n');
    expect(statSync(`${layer}/own-2`).isCharacterDevice()).toBe(true);
    await mount(await driver.mounts('top'), target, { by });
    // Found in mountinfo, however its paths are written there.
    expect((await driver.remove('top')).deferred).toMatch(/uses it|may use it/);
    await unmount(target);
    expect((await driver.cleanup()).deferred).toEqual([]);
    await mount(await driver.view('v', 'layer-2'), target, { by });
    expect(readFileSync(join(target, 'shared'), 'utf8')).toBe('2');
    expect(() => writeFileSync(join(target, 'x'), '')).toThrow(/EROFS/);
    await unmount(target);
    await driver.close();
    assertWhole(root);
  });

  const fate =
    by === 'mount(2)'
      ? 'refuses 500 layers, as the kernel would cut its options off'
      : 'mounts 500 layers right';
  test(`mount() by ${by} ${fate}`, async ({ driver, target }) => {
    const mounts = await prepareOnLayers(driver, 500);
    if (by === 'mount(2)') {
      await expect(mount(mounts, target, { by })).rejects.toMatchObject({ code: 'FAILED_PRECONDITION' });
      expect(isMountPoint(target)).toBe(false);
      return;
    }
    await mount(mounts, target, { by });
    expect(readdirSync(target)).toHaveLength(501);
    for (const number of [1, 250, 499, 500]) {
      expect(readFileSync(join(target, `own-${number}`), 'utf8')).toBe(`${number}`);
    }
    expect(readFileSync(join(target, 'shared'), 'utf8')).toBe('500');
    await unmount(target);
  });

  test(`mount() by ${by} refuses 501 layers before the kernel is asked`, async ({ target }) => {
    const lowerdir = `lowerdir=${Array.from({ length: 501 }, (_, i) => `/nowhere/${i}`).join(':')}`;
    const mounts: Mount[] = [{ type: 'overlay', source: 'overlay', options: [lowerdir] }];
    await expect(mount(mounts, target, { by })).rejects.toThrow(/501 layers/);
  });

  test(`mount() by ${by} undoes a mount that came up read-only, as something is in its work directory`, async ({
    driver,
    target,
  }) => {
    const mounts = await prepareOnLayers(driver, 1);
    const { directory } = await driver.stat('top');
    ensureDirSync(join(directory ?? '', 'work', 'work', 'a/b/c/d/e'));
    await expect(mount(mounts, target, { by })).rejects.toThrow(/is read-only/);
    expect(isMountPoint(target)).toBe(false);
  });

  test(`mount() by ${by} names the layer that is missing`, async ({ driver, target }) => {
    const mounts = await prepareOnLayers(driver, 3);
    const layer = await layerOf(driver, 'layer-2');
    renameSync(layer, `${layer}-away`);
    const error = { code: 'DATA_LOSS', message: expect.stringContaining(layer) as string };
    await expect(mount(mounts, target, { by })).rejects.toMatchObject(error);
    expect(isMountPoint(target)).toBe(false);
    renameSync(`${layer}-away`, layer);
  });

  test(`mount() by ${by} tells the kernel's own words if it refuses, and leaves nothing`, async ({
    root,
    target,
  }) => {
    await using driver = await OverlayDriver.open(root, { ...options, mountOptions: ['no_such_option=1'] });
    const mounts = await prepareOnLayers(driver, 1);
    const words = by === 'descriptors' || by === 'strings' ? /no_such_option/ : /EINVAL|wrong fs type/;
    await expect(mount(mounts, target, { by })).rejects.toThrow(words);
    expect(isMountPoint(target)).toBe(false);
    const [overlay] = mounts;
    // The first of two is undone when the second fails.
    const two: Mount[] = [{ type: 'bind', source: root, options: ['rw'] }, overlay as Mount];
    await expect(mount(two, target, { by })).rejects.toMatchObject({ code: 'FAILED_PRECONDITION' });
    expect(isMountPoint(target)).toBe(false);
  });

  test(`mount() by ${by} sets the attributes of a mount that its options name`, async ({ root, target }) => {
    await using driver = await OverlayDriver.open(root, {
      ...options,
      mountOptions: ['nosuid', 'nodev', 'noexec', 'noatime'],
    });
    await mount(await prepareOnLayers(driver, 2), target, { by });
    const line = readFileSync('/proc/self/mountinfo', 'utf8')
      .split('\n')
      .find((text) => text.includes(` ${target} `));
    expect(line).toMatch(/ rw,nosuid,nodev,noexec,noatime /);
    await unmount(target);
  });
});

test.skipIf(lacking)(
  `mount() and openMount() mount 500 layers right by the method that they choose themselves${lacking}`,
  async ({ driver, target }) => {
    const mounts = await prepareOnLayers(driver, 500);
    await mount(mounts, target);
    expect(readdirSync(target)).toHaveLength(501);
    await unmount(target);
    await using detached = await openMount(mounts);
    expect(readdirSync(detached.path)).toHaveLength(501);
  },
);

describe.skipIf(lacking)(`options at the limit of mount(2)${lacking}`, () => {
  test.for([4094, 4095, 4096, 4097, 4200])(
    'mount() by mount(2) with options of %i bytes mounts the right layers or none',
    async (bytes, { place, target }) => {
      const path = (name: string): string => join(place, name.padStart(120, 'x'));
      const count = Math.floor((bytes - 70 - place.length) / (path('').length + 1));
      const all = Array.from({ length: count }, (_, i) => path(`${i}`));
      const whole = `lowerdir=${all.join(':')}`.length;
      const last = join(place, 'z'.repeat(bytes - whole - 2 - place.length));
      for (const layer of [...all, last]) mkdirSync(layer);
      writeFileSync(join(last, 'seen'), '');
      // The layer that would be mounted in its place if one byte were cut off.
      if (bytes > 4095) ensureDirSync(last.slice(0, last.length - (bytes - 4095)));
      const lowerdir = `lowerdir=${[...all, last].join(':')}`;
      expect(lowerdir.length).toBe(bytes);
      const mounts: Mount[] = [{ type: 'overlay', source: 'overlay', options: [lowerdir] }];
      const mounting = mount(mounts, target, { by: 'mount(2)' });
      if (bytes > 4095) {
        await expect(mounting).rejects.toMatchObject({ code: 'FAILED_PRECONDITION' });
        return;
      }
      await mounting;
      expect(readdirSync(target)).toEqual(['seen']);
      await unmount(target);
    },
  );
});
