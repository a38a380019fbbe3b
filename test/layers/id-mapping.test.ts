import { lstatSync } from 'node:fs';
import { expect } from 'vitest';
import { OverlayDriver } from '../../src/index.ts';
import { UID_MAPPING, checkIdMappings, idMapOptions, mappedRoot } from '../../src/layers/id-mapping.ts';
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

test.for([
  '0:1000',
  '0:1000:0',
  '0:1000:65536,',
  '0:-1:1',
  '0:1000:65536:1',
  ' 0:1000:1',
  '0:4294967295:1',
  '4294967295:0:2',
  '99999999999:0:1',
  '0:1000:1,upperdir=/etc',
  'none',
])('checkIdMappings() refuses the label %j, and no option is made of it', (mapping) => {
  const labels = { [UID_MAPPING]: mapping };
  const refused = expect.objectContaining({
    code: 'INVALID_ARGUMENT',
    message: expect.stringContaining(JSON.stringify(mapping)),
  });
  expect(() => checkIdMappings(labels)).toThrow(refused);
  expect(() => idMapOptions(labels)).toThrow(refused);
});

test('mappedRoot() finds root of the container in any of several ranges, and nothing where it is not mapped', () => {
  expect(mappedRoot({ [UID_MAPPING]: '1:5:1,0:200000:65536' }, UID_MAPPING)).toBe(200_000);
  expect(mappedRoot({ [UID_MAPPING]: '1:5:1' }, UID_MAPPING)).toBeUndefined();
  expect(mappedRoot({}, UID_MAPPING)).toBeUndefined();
});
