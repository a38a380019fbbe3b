import { describe, expect, test } from 'vitest';
import { isRoot } from '../support/mount.ts';
import { missing } from '../support/tree.ts';
import { operations } from './operate.mjs';
import { Sweep, inParallel } from './sweep.ts';

const lacking = [...(isRoot ? [] : ['root']), ...missing('strace', 'sqlite3', 'setfattr', 'unshare')];
const needs = lacking.length === 0 ? '' : ` (needs ${lacking.join(', ')})`;

describe.skipIf(needs !== '')(`a kill at any system call${needs}`, () => {
  test.each(Object.keys(operations))(
    'of %s leaves all of it or nothing',
    async (operation) => {
      const sweep = await Sweep.begin(operation);
      const wrong: string[] = [];
      try {
        await inParallel(sweep.points, async (point) => void wrong.push(...(await sweep.kill(point))));
      } finally {
        sweep.end();
      }
      console.log(`${operation}: killed at ${sweep.points.length} system calls`);
      expect(wrong).toEqual([]);
      expect(sweep.points.length).toBeGreaterThan(0);
    },
    600_000,
  );
});
