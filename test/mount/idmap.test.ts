import { statSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect } from 'vitest';
import { takesDetachedLayers } from '../../src/linux/probe.ts';
import { mount, unmount } from '../../src/mount/index.ts';
import { test } from '../support/fixtures.ts';
import { commitLayer } from '../support/layers.ts';
import { needs } from '../support/needs.ts';

const lacking = needs('root');

const canMapOverlays = await takesDetachedLayers();

describe.skipIf(lacking)(`mapped ids${lacking}`, () => {
  test.override({ driverOptions: { remapIds: true, backups: false } });

  const labels = {
    'containerd.io/snapshot/uidmapping': '0:100000:65536',
    'containerd.io/snapshot/gidmapping': '0:200000:65536',
  };
  const mapped = { uid: 100_000, gid: 200_000 };

  test(`mount() ${canMapOverlays ? 'maps' : 'is UNIMPLEMENTED, as this kernel cannot map,'} the ids of an overlay`, async ({
    driver,
    target,
  }) => {
    await commitLayer(driver, 'base', null, 'touch of-root');
    const mounts = await driver.prepare('mapped', 'base', { labels });
    if (!canMapOverlays) {
      const error = { code: 'UNIMPLEMENTED', hint: expect.stringContaining('Linux 6.15') as string };
      await expect(mount(mounts, target)).rejects.toMatchObject(error);
      return;
    }
    await mount(mounts, target);
    expect(statSync(join(target, 'of-root'))).toMatchObject(mapped);
    expect(statSync(target)).toMatchObject(mapped);
    await unmount(target);
  });

  test('mount() maps the ids of a bind', async ({ driver, target }) => {
    await commitLayer(driver, 'base', null, 'touch of-root');
    await mount(await driver.view('v', 'base', { labels }), target);
    expect(statSync(join(target, 'of-root'))).toMatchObject(mapped);
    await unmount(target);
  });

  test.for(['mount(2)', 'mount(8)'] as const)(
    'mount() by %s is UNIMPLEMENTED if ids are to be mapped',
    async (by, { driver, target }) => {
      await commitLayer(driver, 'base', null, '');
      const mounts = await driver.prepare('mapped', 'base', { labels });
      await expect(mount(mounts, target, { by })).rejects.toMatchObject({ code: 'UNIMPLEMENTED' });
    },
  );
});
