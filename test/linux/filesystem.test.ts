import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { expect } from 'vitest';
import { filesystemOf } from '../../src/linux/filesystem.ts';
import { mount, unmount } from '../../src/mount/mount.ts';
import { type FilesystemType, makeDisk } from '../support/disk.ts';
import { test } from '../support/fixtures.ts';
import { needs } from '../support/needs.ts';

const usable: readonly [
  string,
  FilesystemType,
  number,
  string[],
  { ordered: boolean; copiesOnWrite: boolean },
][] = [
  ['a tmpfs has no journal', 'tmpfs', 1, [], { ordered: false, copiesOnWrite: false }],
  ['an ext4 has an ordered journal', 'ext4', 16, [], { ordered: true, copiesOnWrite: false }],
  [
    'an ext4 without a journal is not ordered',
    'ext4',
    16,
    ['-O', '^has_journal'],
    { ordered: false, copiesOnWrite: false },
  ],
  ['an xfs has an ordered journal', 'xfs', 320, [], { ordered: true, copiesOnWrite: false }],
  ['a btrfs copies on write', 'btrfs', 128, [], { ordered: false, copiesOnWrite: true }],
];

for (const [title, type, mebibytes, options, expected] of usable) {
  const lacking = needs('root', ...(type === 'tmpfs' ? [] : [`mkfs.${type}`]));
  test.skipIf(lacking)(`filesystemOf(): ${title}${lacking}`, ({ undo }) => {
    const disk = makeDisk(type, mebibytes, { options });
    undo(() => disk.remove());
    expect(filesystemOf(disk.root)).toEqual({ unusable: undefined, ...expected });
  });
}

const lacking = needs('root');

test.skipIf(lacking)(
  `filesystemOf() names a filesystem that no store can be on${lacking}`,
  async ({ place, target, undo }) => {
    for (const name of ['lower', 'upper', 'work']) mkdirSync(join(place, name));
    const options = ['lower', 'upper', 'work'].map((name) => `${name}dir=${join(place, name)}`);
    await mount([{ type: 'overlay', source: 'overlay', options }], target);
    undo(() => unmount(target));
    expect(filesystemOf(target).unusable).toBe('overlayfs');
  },
);
