import { devNull } from 'node:os';
import { join } from 'node:path';
import { closeSync, openSync } from 'node:fs';
import { expect, expectTypeOf } from 'vitest';
import { errnoOf } from '../../src/linux/errno.ts';
import {
  cString,
  checked,
  flock,
  fsconfig,
  lseek,
  offThread,
  openat2,
  syncfs,
  umount2,
} from '../../src/linux/foreign.ts';
import { test } from '../support/fixtures.ts';

// The compiler checks the types in this file; what runs checks that koffi agrees.

test('a foreign function has the parameters and the result of its prototype', () => {
  expectTypeOf(openat2).parameters.toEqualTypeOf<[number, number, Buffer, Buffer, number]>();
  expectTypeOf(fsconfig).parameters.toEqualTypeOf<
    [number, number, number, Buffer | null, Buffer | null, number]
  >();
  expectTypeOf(syncfs).returns.toEqualTypeOf<number>();
  expectTypeOf(lseek).returns.toEqualTypeOf<number | bigint>();
  const fd = openSync(devNull, 'r');
  try {
    expect(flock(fd, 1)).toBe(0);
  } finally {
    closeSync(fd);
  }
});

test('a foreign function refuses an argument of a wrong type, and does not make the call', () => {
  // @ts-expect-error -- The first parameter is a number.
  expect(() => flock('1', 1)).toThrow(TypeError);
  // @ts-expect-error -- An argument is missing.
  expect(() => flock(1)).toThrow(TypeError);
});

test('checked() throws an error like those of node:fs, with the call and the path', ({ place }) => {
  const path = cString(join(place, 'missing'));
  expect(checked(5n, 'call')).toBe(5);
  expect(() => checked(umount2(path, 0), 'umount2', path)).toThrow(
    expect.objectContaining({
      code: 'ENOENT',
      errno: -2,
      syscall: 'umount2',
      message: `ENOENT: umount2 '${join(place, 'missing')}'`,
    }),
  );
});

test('offThread() rejects with the errno of its own call, however many are made at once', async ({
  place,
}) => {
  const missing = cString(join(place, 'missing'));
  const notMounted = cString(place);
  const calls = [
    () => offThread(umount2, [missing, 0], 'umount2'),
    () => offThread(umount2, [notMounted, 0], 'umount2'),
    () => offThread(syncfs, [-1], 'syncfs'),
  ];
  const outcomes = await Promise.allSettled(
    Array.from({ length: 10 }, () => calls.map((call) => call())).flat(),
  );
  const codes = outcomes.map((outcome) => outcome.status === 'rejected' && errnoOf(outcome.reason));
  const refusal = process.geteuid?.() === 0 ? 'EINVAL' : 'EPERM';
  expect(codes).toEqual(Array.from({ length: 10 }, () => ['ENOENT', refusal, 'EBADF']).flat());
});

test('offThread() resolves to the result of the call', async ({ place }) => {
  const fd = openSync(place, 'r');
  try {
    expect(await offThread(flock, [fd, 1], 'flock')).toBe(0);
    expectTypeOf(offThread<[number, number]>)
      .parameter(1)
      .toEqualTypeOf<[number, number]>();
  } finally {
    closeSync(fd);
  }
});

test('cString() keeps bytes that are not UTF-8, and ends them with a NUL', () => {
  expect(cString(Buffer.from('\xff\xfe', 'latin1'))).toEqual(Buffer.from([0xff, 0xfe, 0]));
  expect(cString('ä')).toEqual(Buffer.from([0xc3, 0xa4, 0]));
  expect(cString('')).toEqual(Buffer.from([0]));
});
