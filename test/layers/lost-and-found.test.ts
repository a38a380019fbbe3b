import { execFileSync } from 'node:child_process';
import {
  chmodSync,
  existsSync,
  mkdirSync,
  readFileSync,
  readdirSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { outputFileSync } from 'fs-extra/esm';
import { expect } from 'vitest';
import { HeldRoot } from '../../src/layers/held-root.ts';
import type { Layout } from '../../src/layers/layout.ts';
import { placeFor, setAside, writeNote } from '../../src/layers/lost-and-found.ts';
import { test as base } from '../support/fixtures.ts';
import { needs } from '../support/needs.ts';

const test = base.extend<{ held: HeldRoot; layout: Layout }>({
  held: async ({ place }, use) => {
    mkdirSync(join(place, 'root', 'snapshots'), { recursive: true });
    const held = new HeldRoot(join(place, 'root'));
    await use(held);
    held.close();
  },
  layout: async ({ held }, use) => {
    await use(held.layout);
  },
});

function readNote(place: string): unknown {
  return JSON.parse(readFileSync(`${place}.note`, 'utf8'));
}

test('setAside() moves a directory to lost+found/, with a note of what it was and why', ({
  held,
  layout,
}) => {
  outputFileSync(join(layout.fs(7), 'precious'), 'x');
  const place = setAside(held, layout.directory(7), 7, 'it was in the way');
  expect(place).toMatch(/\/lost\+found\/snapshot-7-[^/]+$/);
  expect(existsSync(layout.directory(7))).toBe(false);
  expect(readFileSync(join(place, 'fs/precious'), 'utf8')).toBe('x');
  expect(readNote(place)).toEqual({
    when: expect.stringMatching(/^\d{4}-\d\d-\d\dT.*Z$/),
    what: layout.directory(7),
    why: 'it was in the way',
  });
  expect(statSync(layout.lostAndFound).mode & 0o777).toBe(0o700);
  expect(statSync(`${place}.note`).mode & 0o777).toBe(0o600);
});

test('setAside() keeps a name that is not UTF-8 in the note, in hexadecimal', ({ held, layout }) => {
  const path = Buffer.concat([Buffer.from(`${layout.snapshots}/`), Buffer.from([0xff, 0xfe])]);
  writeFileSync(path, 'x');
  const place = setAside(held, path, undefined, 'it is foreign');
  expect(readNote(place)).toMatchObject({
    what: `${layout.snapshots}/\ufffd\ufffd`,
    pathInHexadecimal: path.toString('hex'),
  });
  expect(readFileSync(place, 'utf8')).toBe('x');
});

test('setAside() never replaces what is in lost+found/ already, however quickly one follows another', ({
  held,
  layout,
}) => {
  const places = Array.from({ length: 50 }, (_, index) => {
    outputFileSync(join(layout.directory(7), 'file'), String(index));
    return setAside(held, layout.directory(7), 7, 'again');
  });
  expect(places.map((place) => readFileSync(join(place, 'file'), 'utf8'))).toEqual(
    places.map((_, index) => String(index)),
  );
  expect(readdirSync(layout.lostAndFound)).toHaveLength(100);
});

test('writeNote() writes a note of its own, and replaces none', ({ held }) => {
  const place = placeFor(held, undefined);
  const note = writeNote(held, { what: 'rows', why: 'they were damaged', rows: [1, 2] }, place);
  expect(note).toBe(`${place.path}.note`);
  expect(JSON.parse(readFileSync(note, 'utf8'))).toMatchObject({ what: 'rows', rows: [1, 2] });
  expect(() => writeNote(held, { what: 'other', why: '' }, place)).toThrow(/EEXIST/);
});

test('placeFor() refuses a lost+found/ that leads out of the store', ({ held, layout, target }) => {
  symlinkSync(target, layout.lostAndFound);
  expect(() => placeFor(held, 1)).toThrow(
    expect.objectContaining({
      code: 'FAILED_PRECONDITION',
      message: expect.stringContaining('is a symbolic link'),
    }),
  );
  expect(readdirSync(target)).toEqual([]);
});

const lacking = needs('strace');

test.skipIf(lacking)(
  `setAside() syncs the directory that something leaves, the one that it comes to, and the note${lacking}`,
  ({ layout, place }) => {
    outputFileSync(join(layout.fs(1), 'in-the-way'), 'x');
    chmodSync(layout.root, 0o700);
    const log = join(place, 'trace');
    const script = join(import.meta.dirname, '../support/open-root.mjs');
    const trace = ['-f', '-y', '-qq', '-o', log, '-e', 'trace=fsync,renameat'];
    const printed = execFileSync('strace', [...trace, process.execPath, script, layout.root], {
      encoding: 'utf8',
    });
    expect(JSON.parse(printed)).toEqual({ opened: true });
    const calls = readFileSync(log, 'utf8').split('\n');
    const moved = calls.findIndex((call) => call.includes('renameat('));
    const synced = calls.slice(moved + 1).flatMap((call) => /fsync\(\d+<(.*)>\)/.exec(call)?.[1] ?? []);
    expect(synced.slice(0, 3)).toEqual([
      layout.snapshots,
      expect.stringMatching(/lost\+found\/snapshot-1-.*\.note$/),
      layout.lostAndFound,
    ]);
  },
);
