import fc from 'fast-check';
import { expect, test } from 'vitest';
import { mergeSorted } from '../../src/linux/merge-sorted.ts';

test('mergeSorted() merges any number of sorted lists, and keeps what is in several of them', () => {
  const byteText = fc.string({
    unit: fc.integer({ min: 0, max: 255 }).map((byte) => String.fromCharCode(byte)),
  });
  fc.assert(
    fc.property(fc.array(fc.array(byteText)), (lists) => {
      const merged: string[] = [];
      const sorted = mergeSorted(lists.map((list) => list.toSorted()));
      for (let next = sorted.next(); next.done !== true; next = sorted.next()) merged.push(next.value);
      expect(merged).toEqual(lists.flat().toSorted());
    }),
  );
});
