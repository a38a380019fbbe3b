import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect } from 'vitest';
import { cString, mount2 } from '../../src/linux/foreign.ts';
import {
  type MountEntry,
  type MountTable,
  linesOf,
  mountPointOf,
  ownMountChanges,
  parseHead,
  parseLine,
  readAllMounts,
  readOtherMounts,
  readOwnMounts,
  readOwnMountsNow,
} from '../../src/linux/mountinfo.ts';
import { mount, unmount } from '../../src/mount/mount.ts';
import { test } from '../support/fixtures.ts';
import { methodsHere } from '../support/mount.ts';
import { needs } from '../support/needs.ts';
import { startProcess } from '../support/process.ts';
import { sh } from '../support/tree.ts';
import { waitFor } from '../support/wait-for.ts';

const lacking = needs('root');

const MS_BIND = 0x1000;

/** A name with every character that is escaped somewhere on the way. */
const ODD_NAME = 'a:b,c\\d e\tf\ng#h"ä';

function entriesAt(table: MountTable, mountPoint: string): (MountEntry | undefined)[] {
  return [...linesOf(table)].filter((line) => mountPointOf(line) === mountPoint).map(parseLine);
}

describe.skipIf(lacking)(`the mounts of this process${lacking}`, () => {
  test('readOwnMountsNow() reads a mount point with any characters, as long as it is mounted', ({
    place,
    undo,
  }) => {
    const target = join(place, ODD_NAME);
    mkdirSync(target);
    sh('mount -t tmpfs none "$PWD"', target);
    undo(() => sh('! mountpoint -q a* || umount a*', place));
    expect(entriesAt(readOwnMountsNow(), target)).toMatchObject([{ type: 'tmpfs', root: '/', layers: [] }]);
    sh('umount a*', place);
    expect(entriesAt(readOwnMountsNow(), target)).toEqual([]);
  });

  test('parseHead() says the same as parseLine()', () => {
    for (const line of linesOf(readOwnMountsNow())) {
      const { isOverlay, ...head } = parseHead(line);
      const entry = parseLine(line);
      expect(entry).toMatchObject(head);
      expect(entry?.type === 'overlay').toBe(isOverlay);
    }
  });

  test.for(methodsHere.filter((by) => by !== 'mount(8)'))(
    'parseLine() finds the layers of an overlay that was mounted by %s, whatever characters are in their paths',
    async (by, { place, target, undo }) => {
      const layers = ['lower', 'upper', 'work'].map((name) => join(place, ODD_NAME, name));
      for (const layer of layers) mkdirSync(layer, { recursive: true });
      const escape = (path: string, characters: RegExp): string => path.replaceAll(characters, '\\$&');
      const [lower = '', upper = '', work = ''] = layers;
      const options = [
        `lowerdir=${escape(lower, /[\\:,]/g)}`,
        `upperdir=${escape(upper, /[\\,]/g)}`,
        `workdir=${escape(work, /[\\,]/g)}`,
      ];
      await mount([{ type: 'overlay', source: 'overlay', options }], target, { by });
      undo(() => unmount(target));
      const [entry] = entriesAt(readOwnMountsNow(), target);
      expect(entry?.layers).toEqual(expect.arrayContaining(layers));
    },
  );

  test('readOwnMounts() reads again only after a change', async ({ target, undo }) => {
    const first = await readOwnMounts();
    const changes = ownMountChanges();
    expect(await readOwnMounts()).toBe(first);
    expect(readOwnMountsNow()).toBe(first);
    sh('mount -t tmpfs none .', target);
    undo(() => sh('umount target', join(target, '..')));
    const [second, third] = await Promise.all([readOwnMounts(), readOwnMounts()]);
    expect(second).toBe(third);
    expect(entriesAt(second, target)).toHaveLength(1);
    expect(ownMountChanges()).toBeGreaterThan(changes);
  });

  test('readOwnMounts() reads a long table to its end, also while it is read already', async ({
    place,
    undo,
  }) => {
    // Each line is longer than its mount point, so these are longer than what is read at once.
    const long = join(place, 'x'.repeat(200), 'y'.repeat(200));
    const count = 600;
    for (let number = 0; number < count; number += 1) {
      mkdirSync(join(long, String(number)), { recursive: true });
    }
    undo(() => sh('for d in "$PWD"/*; do umount "$d"; done', long));
    const all = (table: MountTable): number =>
      [...linesOf(table)].filter((line) => mountPointOf(line).startsWith(long)).length;
    for (let number = 0; number < count; number += 1) {
      expect(mount2(cString(place), cString(join(long, String(number))), null, MS_BIND, null)).toBe(0);
      if (number !== count - 2) continue;
      const early = readOwnMounts();
      expect(all(readOwnMountsNow())).toBe(count - 1);
      expect(all(await early)).toBe(count - 1);
    }
    expect(all(await readOwnMounts())).toBe(count);
  });

  test('readAllMounts() reads the mounts of other namespaces, as long as a process is in them', async ({
    target,
  }) => {
    const seen = async (): Promise<number> =>
      (await readAllMounts()).filter((table) => entriesAt(table, target).length > 0).length;
    const script = 'mount -t tmpfs none "$1" && echo mounted && read line';
    const process = await startProcess('mounted', 'unshare', ['-m', 'sh', '-c', script, 'sh', target]);
    try {
      expect(await seen()).toBe(1);
      expect(entriesAt(await readOwnMounts(), target)).toEqual([]);
    } finally {
      await process.kill();
    }
    await waitFor('the namespace to go', async () => (await seen()) === 0);
  });

  test('readOtherMounts() leaves out a namespace that belongs to a user namespace below this one', async ({
    target,
  }) => {
    const script = 'mount -t tmpfs none "$1" && echo mounted && read line';
    const options = ['--user', '--map-root-user', '--mount'];
    const process = await startProcess('mounted', 'unshare', [...options, 'sh', '-c', script, 'sh', target]);
    try {
      const tables = await readOtherMounts();
      expect(tables.filter((table) => entriesAt(table, target).length > 0)).toEqual([]);
    } finally {
      await process.kill();
    }
  });
});
