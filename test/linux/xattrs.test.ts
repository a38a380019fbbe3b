import { symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect } from 'vitest';
import { cString } from '../../src/linux/foreign.ts';
import { listXattrs, readXattrs, setXattr } from '../../src/linux/xattrs.ts';
import { test as base } from '../support/fixtures.ts';
import { needs } from '../support/needs.ts';
import { sh } from '../support/tree.ts';

const test = base.extend<{
  /** The path of an empty file. */
  file: Buffer;
}>({
  file: async ({ place }, use) => {
    writeFileSync(join(place, 'file'), '');
    await use(cString(join(place, 'file')));
  },
});

test('readXattrs() reads what setXattr() has set, in the order of the names, whatever bytes there are', ({
  file,
}) => {
  const value = Buffer.from(Array.from({ length: 1500 }, (_, index) => index % 256));
  setXattr(file, 'user.\xff\xfe', Buffer.from('name that is not UTF-8'));
  setXattr(file, 'user.empty', Buffer.alloc(0));
  setXattr(file, 'user.binary', value);
  setXattr(file, 'user.Upper', Buffer.from('1'));
  setXattr(file, 'user.Upper', Buffer.from('2'));
  expect(readXattrs(file)).toEqual([
    ['user.Upper', Buffer.from('2')],
    ['user.binary', value],
    ['user.empty', Buffer.alloc(0)],
    ['user.\xff\xfe', Buffer.from('name that is not UTF-8')],
  ]);
  expect(listXattrs(file).toSorted()).toEqual(readXattrs(file).map(([name]) => name));
});

test('readXattrs() reads only the attributes that are asked for', ({ file }) => {
  for (const name of ['user.a', 'user.b', 'user.c']) setXattr(file, name, Buffer.from(name));
  expect(readXattrs(file, { only: (name) => name !== 'user.b' }).map(([name]) => name)).toEqual([
    'user.a',
    'user.c',
  ]);
});

test('readXattrs() leaves out an attribute that was removed since it was listed', ({ file, place }) => {
  for (const name of ['user.a', 'user.b']) setXattr(file, name, Buffer.from(name));
  const only = (name: string): boolean => {
    if (name === 'user.a') sh('setfattr -x user.b file', place);
    return true;
  };
  expect(readXattrs(file, { only }).map(([name]) => name)).toEqual(['user.a']);
});

test('listXattrs() of a missing file fails with ENOENT, and where there are none it is empty', ({
  place,
}) => {
  expect(() => listXattrs(cString(join(place, 'missing')))).toThrow(
    expect.objectContaining({ code: 'ENOENT', message: expect.stringContaining('missing') }),
  );
  expect(listXattrs(cString('/proc/self/status'))).toEqual([]);
});

const lacking = needs('root');

test.skipIf(lacking)(
  `attributes of a symbolic link are its own, unless it is followed${lacking}`,
  ({ file, place }) => {
    symlinkSync('file', join(place, 'link'));
    const link = cString(join(place, 'link'));
    setXattr(file, 'trusted.note', Buffer.from('file'));
    setXattr(link, 'trusted.note', Buffer.from('link'));
    setXattr(link, 'trusted.more', Buffer.from('link'));
    expect(readXattrs(link).map(String)).toEqual(['trusted.more,link', 'trusted.note,link']);
    expect(readXattrs(link, { follow: true }).map(String)).toEqual(['trusted.note,file']);
    expect(listXattrs(link, { follow: true })).toEqual(['trusted.note']);
  },
);
