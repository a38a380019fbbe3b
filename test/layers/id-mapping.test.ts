import { lstatSync } from 'node:fs';
import { expect } from 'vitest';
import { OverlayDriver } from '../../src/index.ts';
import { test } from '../support/fixtures.ts';
import { layerOf } from '../support/layers.ts';
import { needs } from '../support/needs.ts';

const lacking = needs('root');

test.skipIf(lacking)(
  `the root of a layer whose labels map ids belongs to the mapped root${lacking}`,
  async ({ driver, root }) => {
    const labels = {
      'containerd.io/snapshot/uidmapping': '0:100000:65536',
      'containerd.io/snapshot/gidmapping': '1:5:1,0:200000:65536',
    };
    await driver.prepare('k', null, { labels });
    expect(lstatSync(await layerOf(driver, 'k'))).toMatchObject({ uid: 100_000, gid: 200_000 });
    await using remapping = await OverlayDriver.open(root, { remapIds: true, backups: false });
    expect((await remapping.mounts('k'))[0]?.options).toEqual([
      'uidmap=0:100000:65536',
      'gidmap=1:5:1,0:200000:65536',
      'rw',
      'rbind',
    ]);
  },
);
