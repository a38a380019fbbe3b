import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect } from 'vitest';
import {
  type MountEntry,
  type NamespaceMounts,
  findUse,
  isMountOf,
  readAllMounts,
  readOwnMounts,
  readOwnMountsNow,
} from '../../src/linux/mountinfo.ts';
import { mount, unmount } from '../../src/mount/mount.ts';
import { test } from '../support/fixtures.ts';
import { needs } from '../support/needs.ts';
import { startProcess } from '../support/process.ts';
import { sh } from '../support/tree.ts';
import { waitFor } from '../support/wait-for.ts';

const lacking = needs('root');

/** A name with every character that is escaped somewhere on the way. */
const ODD_NAME = 'a:b,c\\d e\tf\ng#h"ä';

function entry(more: Partial<MountEntry> & Pick<MountEntry, 'mountPoint'>): MountEntry {
  return { device: '0:1', root: '/', type: 'tmpfs', layers: [], ...more };
}

function own(...entries: MountEntry[]): NamespaceMounts {
  return { own: true, entries: [entry({ mountPoint: '/', device: '8:1', type: 'ext4' }), ...entries] };
}

describe('findUse()', () => {
  const overlay = (...layers: string[]): MountEntry =>
    entry({ mountPoint: '/merged', type: 'overlay', device: '0:9', layers });
  const bind = (root: string): MountEntry => entry({ mountPoint: '/bound', device: '8:1', root });

  const uses: readonly [string, MountEntry, string | undefined][] = [
    ['a mount on it', entry({ mountPoint: '/s/snapshots/12' }), '/s/snapshots/12 is a mount point'],
    [
      'a mount below it',
      entry({ mountPoint: '/s/snapshots/12/fs/x' }),
      '/s/snapshots/12/fs/x is a mount point',
    ],
    ['a bind mount of it', bind('/s/snapshots/12'), 'it is mounted at /bound'],
    ['a bind mount of what is in it', bind('/s/snapshots/12/fs'), 'it is mounted at /bound'],
    ['a layer in it', overlay('/lower', '/s/snapshots/12/fs'), 'the overlay at /merged uses it'],
    ['a layer relative to snapshots/', overlay('12/fs', '3/fs'), 'the overlay at /merged uses it'],
    ['a layer relative to the root', overlay('snapshots/12/fs'), 'the overlay at /merged uses it'],
    ['no mount on what has its name as a prefix', entry({ mountPoint: '/s/snapshots/123' }), undefined],
    ['no bind mount of what is above it', bind('/s/snapshots'), undefined],
    [
      'no bind mount of the same path on another device',
      { ...bind('/s/snapshots/12'), device: '8:2' },
      undefined,
    ],
    ['no layers of other ids', overlay('2/fs', '123/fs', '/s/snapshots/1/fs', 'snapshots/2/fs'), undefined],
  ];
  test.for(uses)('findUse() of a directory finds %s', ([, use, expected]) => {
    expect(findUse([own(use)], '/s/snapshots/12')).toBe(expected);
  });

  test('findUse() in another namespace says so, and takes no mount point there for a path here', () => {
    const other = (...entries: MountEntry[]): NamespaceMounts[] => [own(), { own: false, entries }];
    expect(findUse(other(bind('/s/snapshots/12/fs')), '/s/snapshots/12')).toBe(
      'it is mounted at /bound in another mount namespace',
    );
    expect(findUse(other(overlay('/s/snapshots/12/fs')), '/s/snapshots/12')).toBe(
      'the overlay at /merged in another mount namespace uses it',
    );
    expect(findUse(other(entry({ mountPoint: '/s/snapshots/12' })), '/s/snapshots/12')).toBeUndefined();
  });

  test('findUse() finds a bind mount by the place of a directory in its own filesystem', () => {
    // The store is on a filesystem of its own, of which a subdirectory is mounted.
    const disk = entry({ mountPoint: '/srv', device: '8:5', root: '/data' });
    const bound = entry({ mountPoint: '/elsewhere', device: '8:5', root: '/data/s/snapshots/12/fs' });
    expect(findUse([own(disk, bound)], '/srv/s/snapshots/12')).toBe('it is mounted at /elsewhere');
    expect(
      findUse([own(disk, { ...bound, root: '/srv/s/snapshots/12' })], '/srv/s/snapshots/12'),
    ).toBeUndefined();
  });
});

test('isMountOf() is true for bind mounts and overlays of what is in a directory', () => {
  const bound = entry({ mountPoint: '/bound', device: '8:1', root: '/s/snapshots/1/fs' });
  const overlay = entry({ mountPoint: '/merged', type: 'overlay', layers: ['/lower', '/s/snapshots/2/fs'] });
  const other = entry({ mountPoint: '/other', type: 'overlay', layers: ['/elsewhere/snapshots/2/fs'] });
  const mounts = own(bound, overlay, other);
  expect(mounts.entries.filter((one) => isMountOf(mounts, one, '/s/snapshots'))).toEqual([bound, overlay]);
});

describe.skipIf(lacking)(`the mounts of this process${lacking}`, () => {
  test('readOwnMountsNow() reads a mount point with any characters, as long as it is mounted', ({
    place,
    undo,
  }) => {
    const target = join(place, ODD_NAME);
    mkdirSync(target);
    sh('mount -t tmpfs none "$PWD"', target);
    undo(() => sh('! mountpoint -q a* || umount a*', place));
    const found = readOwnMountsNow().entries.filter(({ mountPoint }) => mountPoint === target);
    expect(found).toMatchObject([{ type: 'tmpfs', root: '/', layers: [] }]);
    sh('umount a*', place);
    expect(readOwnMountsNow().entries.some(({ mountPoint }) => mountPoint === target)).toBe(false);
  });

  test.for(['descriptors', 'strings', 'mount(2)'] as const)(
    'findUse() finds the layers of an overlay that was mounted by %s, whatever characters are in their paths',
    async (by, { place, target, undo }) => {
      const layers = ['lower', 'upper', 'work'].map((name) => join(place, ODD_NAME, name));
      for (const layer of [...layers, `${layers[0]}-2`]) mkdirSync(layer, { recursive: true });
      const escape = (path: string, characters: RegExp): string => path.replaceAll(characters, '\\$&');
      const [lower = '', upper = '', work = ''] = layers;
      const options = [
        `lowerdir=${escape(lower, /[\\:,]/g)}`,
        `upperdir=${escape(upper, /[\\,]/g)}`,
        `workdir=${escape(work, /[\\,]/g)}`,
      ];
      await mount([{ type: 'overlay', source: 'overlay', options }], target, { by });
      undo(() => unmount(target));
      const mounts = [readOwnMountsNow()];
      for (const layer of layers) expect(findUse(mounts, layer)).toBe(`the overlay at ${target} uses it`);
      expect(findUse(mounts, `${lower}-2`)).toBeUndefined();
    },
  );

  test('readOwnMounts() reads once for all calls of a turn, and after the last of them', async ({
    place,
    undo,
  }) => {
    const target = join(place, 'target');
    mkdirSync(target);
    const first = readOwnMounts();
    sh('mount -t tmpfs none target', place);
    undo(() => sh('umount target', place));
    const second = readOwnMounts();
    expect(await first).toBe(await second);
    expect((await first).entries.some(({ mountPoint }) => mountPoint === target)).toBe(true);
  });

  test('readAllMounts() reads the mounts of other namespaces', async ({ place, target }) => {
    const layer = join(place, 'layer');
    mkdirSync(layer);
    const script = 'mount --bind "$1" "$2" && echo mounted && read line';
    const process = await startProcess('mounted', 'unshare', ['-m', 'sh', '-c', script, 'sh', layer, target]);
    try {
      expect(findUse(await readAllMounts(), layer)).toBe(
        `it is mounted at ${target} in another mount namespace`,
      );
      expect(findUse([await readOwnMounts()], layer)).toBeUndefined();
    } finally {
      await process.kill();
    }
    await waitFor('the namespace to go', async () => findUse(await readAllMounts(), layer) === undefined);
  });
});
