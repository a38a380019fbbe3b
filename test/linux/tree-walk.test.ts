import {
  closeSync,
  fstatSync,
  mkdirSync,
  openSync,
  readFileSync,
  readdirSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { outputFileSync } from 'fs-extra/esm';
import { describe, expect } from 'vitest';
import { openDirectory, openWithoutMounts } from '../../src/linux/file-calls.ts';
import { cString } from '../../src/linux/foreign.ts';
import { type TreeWalk, walkBeneath, walkOpen, walkTree } from '../../src/linux/tree-walk.ts';
import { test } from '../support/fixtures.ts';
import { needs } from '../support/needs.ts';
import { sh } from '../support/tree.ts';

/** The paths that a walk yields, one character for each byte. */
function paths(walk: TreeWalk): string[] {
  const found: string[] = [];
  for (const entry of walk) if (entry !== undefined) found.push(entry.path.toString('latin1'));
  return found;
}

test('walkTree() goes through a tree in the order of the bytes, where a directory ends with a slash', ({
  place,
}) => {
  for (const file of ['a-', 'a.', 'a/x', 'a/b/c', 'a/b-', 'a0', 'B']) outputFileSync(join(place, file), '');
  expect(paths(walkTree(place))).toEqual(['/', 'B', 'a-', 'a.', 'a/', 'a/b-', 'a/b/', 'a/b/c', 'a/x', 'a0']);
});

test('walkTree() lists names that are not UTF-8', ({ place }) => {
  sh(String.raw`mkdir $'\xff\xfe'; touch $'\xff\xfe/\xe4\n' ä`, place);
  expect(paths(walkTree(place))).toEqual(['/', 'Ã¤', '\xff\xfe/', '\xff\xfe/\xe4\n']);
  const [, , , last] = [...walkTree(place)].filter((entry) => entry !== undefined);
  expect(last?.text).toBe('\xff\xfe/\xe4\n');
});

test('walkTree() follows no symbolic link', ({ place, target }) => {
  writeFileSync(join(target, 'file'), '');
  mkdirSync(join(place, 'tree'));
  symlinkSync(target, join(place, 'tree/link'));
  expect(paths(walkTree(join(place, 'tree')))).toEqual(['/', 'link']);
  expect(() => paths(walkTree(join(place, 'tree/link')))).toThrow(/ENOTDIR/);
});

test('walkTree() does not enter a directory that was replaced by a symbolic link meanwhile', ({ place }) => {
  outputFileSync(join(place, 'outside/secret'), '');
  outputFileSync(join(place, 'tree/directory/file'), '');
  const found: string[] = [];
  for (const entry of walkTree(join(place, 'tree'))) {
    if (entry === undefined) continue;
    found.push(entry.text);
    if (entry.text !== 'directory/') continue;
    renameSync(join(place, 'tree/directory'), join(place, 'away'));
    symlinkSync('../outside', join(place, 'tree/directory'));
  }
  expect(found).toEqual(['/', 'directory/']);
});

test('walkTree() leaves out files that vanish before it reaches them', ({ place }) => {
  for (const file of ['a', 'b', 'c/file', 'd']) outputFileSync(join(place, file), '');
  const found: string[] = [];
  for (const entry of walkTree(place)) {
    if (entry === undefined) continue;
    found.push(entry.text);
    if (entry.text === 'a') rmSync(join(place, 'b'));
    if (entry.text === 'c/') rmSync(join(place, 'c'), { recursive: true });
  }
  expect(found).toEqual(['/', 'a', 'c/', 'd']);
});

test('walkTree() leaves out what is below a directory that is skipped', ({ place }) => {
  for (const file of ['a/b/c', 'a/d', 'e']) outputFileSync(join(place, file), '');
  const found: string[] = [];
  for (const entry of walkTree(place)) {
    if (entry === undefined) continue;
    found.push(entry.text);
    if (entry.text === 'a/b/') entry.skip();
  }
  expect(found).toEqual(['/', 'a/', 'a/b/', 'a/d', 'e']);
});

test('walkTree() sorts a directory that takes several reads, and gives its caller a break in between', ({
  place,
}) => {
  sh('seq -f name-%.0f 5000 | xargs touch', place);
  const entries = Array.from(walkTree(place), (entry) => entry?.text);
  expect(entries.filter((text) => text === undefined).length).toBeGreaterThan(0);
  const names = entries.filter((text) => text !== undefined).slice(1);
  expect(names).toEqual(readdirSync(place).toSorted());
});

test('walkTree() reaches files whose paths are longer than the kernel takes', ({ place, undo }) => {
  const name = 'n'.repeat(250);
  undo(() => sh('rm -r n*', place));
  sh(`for i in $(seq 20); do mkdir ${name}; cd -P ${name}; done; echo deep > file`, place);
  for (const entry of walkTree(place)) {
    if (entry?.text.endsWith('/file') !== true) continue;
    expect(entry.path.length).toBe(20 * 251 + 4);
    expect(entry.status.size).toBe(5);
    expect(readFileSync(entry.handle.subarray(0, -1), 'utf8')).toBe('deep\n');
    return;
  }
  throw new Error('it was not reached');
});

test('walkTree() closes every directory if its caller stops early', ({ place }) => {
  outputFileSync(join(place, 'a/b/c/file'), '');
  const open = (): string[] => readdirSync('/proc/self/fd');
  const before = open();
  for (const entry of walkTree(place)) if (entry?.text === 'a/b/c/') break;
  expect(open()).toEqual(before);
});

test('walkOpen() walks an open directory wherever it is moved to, and leaves it open', ({ place }) => {
  outputFileSync(join(place, 'here/file'), '');
  const fd = openSync(join(place, 'here'), 'r');
  try {
    renameSync(join(place, 'here'), join(place, 'there'));
    expect(paths(walkOpen(fd))).toEqual(['/', 'file']);
    expect(fstatSync(fd).isDirectory()).toBe(true);
  } finally {
    closeSync(fd);
  }
});

const lacking = needs('root');

describe.skipIf(lacking)(`mounts in a tree${lacking}`, () => {
  test('walkTree() sees the files below a mount, and not those in it', ({ place, undo }) => {
    outputFileSync(join(place, 'covered/below'), '');
    sh('mount -t tmpfs none covered; touch covered/above', place);
    undo(() => sh('umount covered', place));
    expect(paths(walkTree(place))).toEqual(['/', 'covered/', 'covered/below']);
  });

  test('walkBeneath() sees the files below what was mounted since, even on the directory itself', ({
    place,
    undo,
  }) => {
    outputFileSync(join(place, 'tree/inner/below'), '');
    const plain = openDirectory(cString(place));
    const clone = openWithoutMounts(plain) ?? -1;
    sh('mount --make-private / 2>/dev/null || true; mount -t tmpfs none tree', place);
    undo(() => sh('umount tree', place));
    try {
      expect(paths(walkBeneath(clone, 'tree'))).toEqual(['/', 'inner/', 'inner/below']);
    } finally {
      closeSync(plain);
      closeSync(clone);
    }
  });
});
