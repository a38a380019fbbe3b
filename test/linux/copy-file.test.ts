import { execFileSync } from 'node:child_process';
import { existsSync, readFileSync, statSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect } from 'vitest';
import { copyFile } from '../../src/linux/copy-file.ts';
import { makeDisk } from '../support/disk.ts';
import { test } from '../support/fixtures.ts';
import { needs } from '../support/needs.ts';

const lacking = needs('root');

describe.skipIf(lacking)(`copyFile()${lacking}`, () => {
  test('a copy has the data of a file at the same places, and its holes', ({ place }) => {
    const file = join(place, 'file');
    writeFileSync(file, 'begin');
    truncateSync(file, 3 << 20);
    writeFileSync(file, Buffer.alloc(70_000, 'x'), { flag: 'a' });
    truncateSync(file, 5 << 20);
    copyFile(file, join(place, 'copy'));
    expect(readFileSync(join(place, 'copy')).equals(readFileSync(file))).toBe(true);
    expect(statSync(join(place, 'copy')).blocks).toBeLessThan(400);
  });

  test('a file of terabytes that is a hole is copied to a small disk', ({ place, undo }) => {
    const disk = makeDisk('tmpfs', 1);
    undo(() => disk.remove());
    const file = join(place, 'file');
    writeFileSync(file, 'begin');
    truncateSync(file, 2 ** 42);
    copyFile(file, join(disk.path, 'copy'));
    expect(statSync(join(disk.path, 'copy'))).toMatchObject({ size: 2 ** 42 });
  });

  test('nothing is written if there is too little space', ({ place, undo }) => {
    const disk = makeDisk('tmpfs', 1);
    undo(() => disk.remove());
    const file = join(place, 'file');
    writeFileSync(file, Buffer.alloc(1 << 20, 'x'));
    expect(() => copyFile(file, join(disk.path, 'copy'))).toThrow(
      expect.objectContaining({ code: 'RESOURCE_EXHAUSTED' }),
    );
    expect(existsSync(join(disk.path, 'copy'))).toBe(false);
  });

  test('a file that is there is not replaced, and a fifo is not opened', ({ place }) => {
    const [file, copy, fifo] = [join(place, 'file'), join(place, 'copy'), join(place, 'fifo')];
    for (const path of [file, copy]) writeFileSync(path, path);
    execFileSync('mkfifo', [fifo]);
    expect(() => copyFile(file, copy)).toThrow('EEXIST');
    expect(() => copyFile(fifo, join(place, 'other'))).toThrow(
      expect.objectContaining({ code: 'FAILED_PRECONDITION' }),
    );
    expect(readFileSync(copy, 'utf8')).toBe(copy);
  });
});
