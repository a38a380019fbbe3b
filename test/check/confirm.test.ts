import { join } from 'node:path';
import { mkdirSync } from 'node:fs';
import { describe, expect } from 'vitest';
import { confirm } from '../../src/check/confirm.ts';
import { type Problem, problem } from '../../src/check/problem.ts';
import { openCheckContext } from '../support/check-context.ts';
import { leaveOpen } from '../support/damage.ts';
import { test } from '../support/fixtures.ts';
import { needs } from '../support/needs.ts';

const lacking = needs('root', 'sqlite3');

const missing = (id: number): Problem =>
  problem('work-missing', { snapshot: '"a"', id, path: `/${id}/work` });
const extra = (id: number): Problem =>
  problem('entry-extra', { snapshot: '"a"', name: 'notes', id, path: `/${id}/notes` });

describe.skipIf(lacking)(`confirm()${lacking}`, () => {
  test('while a store is in use, only the problems that are there each of four times are confirmed', async ({
    root,
  }) => {
    leaveOpen(root, `await driver.prepare('a');`);
    const context = openCheckContext(root, () => {
      throw new Error('it is read in place');
    });
    expect(context.inspector.shared).toBe(true);
    // What each id has the first, second, … time that it is checked again.
    const later: Record<number, Problem[][]> = {
      1: [[missing(1)], [missing(1)], [missing(1)], [missing(1)]],
      2: [[missing(2)], []],
      3: [[missing(3)], [missing(3)], [missing(3)], []],
      // Another problem than the one that was suspected says nothing about that one.
      4: [[extra(4)]],
      5: [[missing(5), extra(5)], [extra(5)], [extra(5)], [extra(5)]],
    };
    const checks: number[] = [];
    const confirmed = await confirm(
      context,
      new Map([
        [1, [missing(1)]],
        [2, [missing(2)]],
        [3, [missing(3)]],
        [4, [missing(4)]],
        [5, [missing(5), extra(5)]],
        [6, []],
      ]),
      (id) => {
        const time = checks.filter((checked) => checked === id).length;
        checks.push(id);
        return later[id]?.[time] ?? [];
      },
    );
    context.inspector.close();
    expect(confirmed).toEqual([missing(1), extra(5)]);
    const times = [1, 2, 3, 4, 5, 6].map((id) => checks.filter((checked) => checked === id).length);
    expect(times).toEqual([4, 2, 4, 1, 4, 0]);
  });

  test('while nobody uses a store, problems are confirmed at once', async ({ example, place }) => {
    const scratch = join(place, 'scratch');
    mkdirSync(scratch);
    const context = openCheckContext(example.root, () => scratch);
    expect(context.inspector.shared).toBe(false);
    const checks: number[] = [];
    const confirmed = await confirm(
      context,
      new Map([
        [1, [missing(1)]],
        [2, [missing(2)]],
      ]),
      (id) => {
        checks.push(id);
        return id === 1 ? [missing(1)] : [];
      },
    );
    context.inspector.close();
    expect(confirmed).toEqual([missing(1)]);
    expect(checks).toEqual([1, 2]);
  });
});
