import { expect, test } from 'vitest';
import { nowUs } from '../../src/metadata/clock.ts';

test('nowUs() gives whole microseconds, later at each call of a burst', () => {
  const times = Array.from({ length: 500 }, () => nowUs());
  expect(times.every((us) => Number.isSafeInteger(us))).toBe(true);
  expect(times).toEqual([...new Set(times)].toSorted((a, b) => a - b));
});

test('nowUs() gives the time of the wall clock', () => {
  const before = Date.now();
  const us = nowUs();
  const after = Date.now();
  // It corrects itself by Date.now() if it is off by more than 2 ms, and that has left out a part of a millisecond.
  expect(us / 1000).toBeGreaterThanOrEqual(before - 3);
  expect(us / 1000).toBeLessThanOrEqual(after + 3);
});
