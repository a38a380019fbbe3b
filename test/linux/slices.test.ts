import { setTimeout as sleep } from 'node:timers/promises';
import { expect, test } from 'vitest';
import { TimeSlice, inSlices } from '../../src/linux/slices.ts';

/** Keeps the processor busy until the slice that has begun has expired. */
function work(): void {
  const slice = performance.now() + 10;
  while (performance.now() < slice);
}

test('inSlices() visits all items in their order, waits for each, and visits no undefined', async () => {
  const visited: number[] = [];
  await inSlices([1, undefined, 2, undefined, 3], async (item) => {
    await sleep(3 - item);
    visited.push(item);
  });
  expect(visited).toEqual([1, 2, 3]);
});

test('inSlices() lets others run between slices, and calls onSlice then', async () => {
  let turns = 0;
  let slices = 0;
  const count = (): void => {
    turns += 1;
    if (turns < 1000) setImmediate(count);
  };
  setImmediate(count);
  const seen: number[] = [];
  const visit = (): void => {
    seen.push(turns);
    work();
  };
  await inSlices([1, 2, 3, 4], visit, { onSlice: () => (slices += 1) });
  expect(slices).toBe(4);
  // Others ran before the first item, and between any two.
  expect(seen[0]).toBeGreaterThan(0);
  expect(new Set(seen).size).toBe(4);
  turns = 1000;
});

test('inSlices() lets others run before the first item, however few there are', async () => {
  let other = false;
  setImmediate(() => (other = true));
  await inSlices([1], () => expect(other).toBe(true));
});

test('inSlices() throws the reason of a signal, and visits nothing more', async () => {
  const reason = new Error('enough');
  await expect(
    inSlices([1], () => expect.unreachable('an item was visited'), { signal: AbortSignal.abort(reason) }),
  ).rejects.toBe(reason);
  const controller = new AbortController();
  const visited: number[] = [];
  const visit = (item: number): void => {
    visited.push(item);
    work();
    if (item === 2) controller.abort(reason);
  };
  await expect(inSlices([1, 2, 3], visit, { signal: controller.signal })).rejects.toBe(reason);
  expect(visited).toEqual([1, 2]);
});

test('inSlices() ends with an error that a visit or onSlice throws, and closes what it iterates over', async () => {
  let closed = 0;
  function* items(): Generator<number, void, undefined> {
    try {
      for (;;) yield 1;
    } finally {
      closed += 1;
    }
  }
  const fail = (): never => {
    throw new Error('enough');
  };
  await expect(inSlices(items(), fail)).rejects.toThrow('enough');
  await expect(inSlices(items(), async () => fail())).rejects.toThrow('enough');
  await expect(inSlices(items(), work, { onSlice: fail })).rejects.toThrow('enough');
  expect(closed).toBe(3);
});

test('a TimeSlice has expired until it is renewed, and again after a while', async () => {
  const slice = new TimeSlice({});
  expect(slice.expired).toBe(true);
  await slice.renew();
  work();
  expect(slice.expired).toBe(true);
});
