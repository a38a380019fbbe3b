import { closeSync, mkdirSync, openSync, readdirSync, renameSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { expect } from 'vitest';
import { Descent } from '../../src/linux/descent.ts';
import { createDirectory, openDirectoryBeneath } from '../../src/linux/file-calls.ts';
import { FileStatus } from '../../src/linux/file-status.ts';
import { cString } from '../../src/linux/foreign.ts';
import { test as base } from '../support/fixtures.ts';
import { sh } from '../support/tree.ts';

const test = base.extend<{
  /** A way that begins at `place`. */
  way: Descent;
}>({
  way: async ({ place }, use) => {
    using way = new Descent(openSync(place, 'r'));
    await use(way);
  },
});

function makeNested(place: string, levels: number): void {
  let fd = openSync(place, 'r');
  for (let level = 0; level < levels; level += 1) {
    createDirectory(fd, cString('d'), 0o700);
    const next = openDirectoryBeneath(fd, cString('d'));
    closeSync(fd);
    fd = next;
  }
  closeSync(fd);
}

/** Goes down so many directories. @returns their inodes, with that of where the way began first */
function goDown(way: Descent, levels: number): bigint[] {
  const inodes = [inodeAtEnd(way)];
  for (let level = 0; level < levels; level += 1) {
    way.enter(openDirectoryBeneath(way.fd, cString('d')), Buffer.from('d'));
    inodes.push(inodeAtEnd(way));
  }
  return inodes;
}

function inodeAtEnd(way: Descent): bigint {
  const status = new FileStatus();
  status.readOpen(way.fd);
  return status.inode;
}

function countOpen(): number {
  return readdirSync('/proc/self/fd').length;
}

test('Descent comes back through each directory that it went down by, with few of them open', ({
  place,
  way,
  undo,
}) => {
  undo(() => sh('rm -r d', place));
  makeNested(place, 3000);
  const before = countOpen();
  const inodes = goDown(way, 3000);
  expect(countOpen() - before).toBeLessThan(16);
  let most = 0;
  for (let length = 3000; length > 0; length -= 1) {
    closeSync(way.leave());
    expect(way.length).toBe(length);
    expect(inodeAtEnd(way)).toBe(inodes[length - 1]);
    most = Math.max(most, countOpen() - before);
  }
  expect(most).toBeLessThan(16);
  closeSync(way.leave());
  expect(way.length).toBe(0);
});

test('Descent goes down again from anywhere on the way back', ({ place, way }) => {
  makeNested(place, 300);
  goDown(way, 300);
  for (const [up, down] of [
    [100, 50],
    [9, 9],
    [240, 200],
    [17, 3],
  ] as const) {
    for (let left = 0; left < up; left += 1) closeSync(way.leave());
    goDown(way, down);
  }
  expect(way.length).toBe(301 - 100 + 50 - 240 + 200 - 17 + 3);
  while (way.length > 1) closeSync(way.leave());
  expect(readdirSync(`/proc/self/fd/${way.fd}`)).toEqual(['d']);
});

test('Descent ends above a directory that was moved away with those it came by', ({ place, way }) => {
  makeNested(place, 200);
  const inodes = goDown(way, 200);
  const path = join(place, ...Array.from({ length: 50 }, () => 'd'));
  renameSync(path, join(place, 'away'));
  let last = way.length;
  while (way.length === last && last > 1) {
    closeSync(way.leave());
    last -= 1;
  }
  expect(way.length).toBe(50);
  expect(inodeAtEnd(way)).toBe(inodes[49]);
});

test('Descent does not take another directory for the one that it came by', ({ place, way }) => {
  makeNested(place, 100);
  goDown(way, 100);
  renameSync(join(place, 'd/d/d'), join(place, 'away'));
  mkdirSync(join(place, 'd/d/d'));
  makeNested(join(place, 'd/d/d'), 97);
  let last = way.length;
  while (way.length === last && last > 1) {
    closeSync(way.leave());
    last -= 1;
  }
  expect(way.length).toBe(3);
  rmSync(join(place, 'away'), { recursive: true });
});
