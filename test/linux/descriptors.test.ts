import { fstatSync, openSync } from 'node:fs';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { expect } from 'vitest';
import { Descriptors, allEnded } from '../../src/linux/descriptors.ts';
import { test } from '../support/fixtures.ts';

test('using closes all Descriptors, also those of a body that throws', ({ place }) => {
  const opened: number[] = [];
  const body = (): void => {
    using descriptors = new Descriptors();
    for (let i = 0; i < 3; i += 1) opened.push(descriptors.add(openSync(place, 'r')));
    expect(descriptors.all).toEqual(opened);
    throw new Error('enough');
  };
  expect(body).toThrow('enough');
  for (const fd of opened) expect(() => fstatSync(fd)).toThrow(/EBADF/);
});

test('await using closes all Descriptors before the function resolves', async ({ place }) => {
  const body = async (): Promise<number> => {
    await using descriptors = new Descriptors();
    const fd = descriptors.add(openSync(place, 'r'));
    await nextTurn();
    expect(fstatSync(fd).isDirectory()).toBe(true);
    return fd;
  };
  const fd = await body();
  expect(() => fstatSync(fd)).toThrow(/EBADF/);
});

test('allEnded() resolves to all values, and is rejected only when all have ended', async () => {
  expect(await allEnded([Promise.resolve(1), Promise.resolve('a')])).toEqual([1, 'a']);
  let ended = false;
  const slow = (async (): Promise<void> => {
    for (let turn = 0; turn < 5; turn += 1) await nextTurn();
    ended = true;
  })();
  await expect(allEnded([Promise.reject(new Error('first')), slow])).rejects.toThrow('first');
  expect(ended).toBe(true);
});
