import { existsSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect } from 'vitest';
import { SpareSpace } from '../../src/metadata/spare-space.ts';
import { type Disk, makeDisk } from '../support/disk.ts';
import { test as base } from '../support/fixtures.ts';
import { needs } from '../support/needs.ts';

const test = base.extend<{ disk: Disk; path: string }>({
  disk: async ({ place: _afterwards }, use) => {
    const disk = makeDisk('tmpfs', 2);
    await use(disk);
    disk.remove();
  },
  path: async ({ disk }, use) => {
    await use(join(disk.root, 'reserve'));
  },
});

/** Writes to a file until the disk is full. */
function fill(file: string): void {
  for (const bytes of [65_536, 4096]) {
    try {
      for (;;) writeFileSync(file, Buffer.alloc(bytes), { flag: 'a' });
    } catch (error) {
      if (Reflect.get(Object(error), 'code') !== 'ENOSPC') throw error;
    }
  }
}

const lacking = needs('root');

describe.skipIf(lacking)(`SpareSpace${lacking}`, () => {
  test('spare space that is released on a full disk can be used at once', ({ disk, path }) => {
    const spare = new SpareSpace(path);
    const { size, blocks, mode } = statSync(path);
    expect(blocks * 512).toBeGreaterThanOrEqual(size);
    expect(mode & 0o777).toBe(0o600);
    fill(join(disk.path, 'filler'));
    expect(() => writeFileSync(join(disk.path, 'mine'), Buffer.alloc(size))).toThrow('ENOSPC');
    spare.release();
    writeFileSync(join(disk.path, 'mine'), Buffer.alloc(size));
  });

  test('spare space is not held while the disk has no room, and leaves no part of it behind', ({
    disk,
    path,
  }) => {
    fill(join(disk.path, 'filler'));
    writeFileSync(join(disk.path, 'filler'), Buffer.alloc(65_536), { flag: 'r+' });
    const spare = new SpareSpace(path);
    expect(existsSync(path)).toBe(false);
    writeFileSync(join(disk.path, 'filler'), '');
    spare.hold();
    expect(statSync(path).size).toBeGreaterThan(65_536);
  });

  test('spare space that another process has freed can be released again', ({ path }) => {
    const spare = new SpareSpace(path);
    SpareSpace.free(path);
    SpareSpace.free(path);
    spare.release();
    spare.hold();
    expect(existsSync(path)).toBe(true);
  });
});
