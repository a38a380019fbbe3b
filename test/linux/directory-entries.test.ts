import { closeSync, mkdirSync, openSync, readdirSync, rmdirSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect } from 'vitest';
import { readBatches, readBatchesOf } from '../../src/linux/directory-entries.ts';
import { test } from '../support/fixtures.ts';
import { sh } from '../support/tree.ts';

test('readBatchesOf() lists names that are not UTF-8, with their types, and neither . nor ..', ({
  place,
}) => {
  writeFileSync(Buffer.concat([Buffer.from(`${place}/`), Buffer.from([0xff, 0x0a, 0xe4])]), '');
  mkdirSync(join(place, '...'));
  symlinkSync('...', join(place, 'link'));
  sh('mkfifo fifo', place);
  const found = [...readBatchesOf(place)].flat().map((entry) => ({
    name: entry.name.toString('latin1'),
    types: [entry.isDirectory(), entry.isFile(), entry.isSymbolicLink(), entry.hasType],
  }));
  expect(found.toSorted((a, b) => (a.name < b.name ? -1 : 1))).toEqual([
    { name: '...', types: [true, false, false, true] },
    { name: 'fifo', types: [false, false, false, true] },
    { name: 'link', types: [false, false, true, true] },
    { name: '\xff\n\xe4', types: [false, true, false, true] },
  ]);
});

test('readBatchesOf() lists a large directory in several batches, each name once', ({ place }) => {
  sh('seq -f name-%.0f 5000 | xargs touch', place);
  const batches = [...readBatchesOf(place)];
  expect(batches.length).toBeGreaterThan(2);
  const names = batches.flat().map(({ text }) => text);
  expect(names.toSorted()).toEqual(readdirSync(place).toSorted());
});

test('readBatchesOf() closes the directory if its caller stops early', ({ place }) => {
  sh('seq -f name-%.0f 5000 | xargs touch', place);
  const open = (): string[] => readdirSync('/proc/self/fd');
  const before = open();
  for (const batch of readBatchesOf(place)) {
    expect(batch.length).toBeGreaterThan(0);
    break;
  }
  expect(open()).toEqual(before);
});

test('readBatchesOf() of a file fails with ENOTDIR', ({ place }) => {
  writeFileSync(join(place, 'file'), '');
  expect(() => [...readBatchesOf(join(place, 'file'))]).toThrow(/ENOTDIR/);
});

test('readBatches() ends at once in a directory that was deleted while it was open', ({ target }) => {
  const fd = openSync(target, 'r');
  try {
    rmdirSync(target);
    expect([...readBatches(fd)]).toEqual([]);
  } finally {
    closeSync(fd);
  }
});
