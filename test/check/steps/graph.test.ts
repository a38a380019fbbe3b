import { describe, expect } from 'vitest';
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { Rows } from '../../../src/check/rows.ts';
import { checkGraph } from '../../../src/check/steps/graph.ts';
import type { SeenSnapshot } from '../../../src/metadata/repair/inspector.ts';
import { MAX_LOWERS } from '../../../src/mount/options.ts';
import { openCheckContext } from '../../support/check-context.ts';
import { test as base } from '../../support/fixtures.ts';
import { needs } from '../../support/needs.ts';

/** A row as the database has it, called after its id. */
function row(id: number, kind: string, parentId: number | null = null): SeenSnapshot {
  const usage = kind === 'committed' ? { inodes: 1, size: 0 } : { inodes: null, size: null };
  return {
    id,
    name: `s${id}`,
    kind,
    parentId,
    createdUs: 1,
    ...usage,
    seal: null,
    inUse: null,
    volatileBoot: null,
  };
}

/** A chain of committed snapshots of a length, with the ids 1, 2, 3, …. */
function chain(length: number): SeenSnapshot[] {
  return Array.from({ length }, (_, index) => row(index + 1, 'committed', index === 0 ? null : index));
}

const test = base.extend<{ check: (rows: Rows, only?: ReadonlySet<number>) => string[] }>({
  /** Gives the codes of what is found, each with the id that it concerns. */
  check: async ({ example, place }, use) => {
    const scratch = join(place, 'scratch');
    mkdirSync(scratch);
    await use((rows, only) => {
      const context = openCheckContext(example.root, () => scratch, { rows, only });
      checkGraph(context);
      context.inspector.close();
      return [...context.problems].map(({ code, id }) => (id === undefined ? code : `${code} ${id}`));
    });
  },
});

const lacking = needs('root', 'sqlite3');

describe.skipIf(lacking)(`checkGraph()${lacking}`, () => {
  test('a chain of as many layers as overlayfs stacks is not too long, and one more is', ({ check }) => {
    const layers = chain(MAX_LOWERS + 1);
    const longest = row(2000, 'active', MAX_LOWERS);
    const tooLong = row(2001, 'view', MAX_LOWERS + 1);
    expect(check(new Rows([...layers, longest, tooLong], [], 2001))).toEqual(['chain-too-long 2001']);
  });

  test('a cycle is found in each of its members and in all that stands on it, and nowhere else', ({
    check,
  }) => {
    const rows = [
      row(1, 'committed', 3),
      row(2, 'committed', 1),
      row(3, 'committed', 2),
      row(4, 'active', 2),
      row(5, 'committed'),
      row(6, 'active', 5),
      row(7, 'committed', 7),
    ];
    expect(check(new Rows(rows, [], 7))).toEqual(['cycle 1', 'cycle 2', 'cycle 3', 'cycle 4', 'cycle 7']);
  });

  test('a parent that is missing, and one that is not committed, are found in the child', ({ check }) => {
    const rows = [row(1, 'active'), row(2, 'active', 1), row(3, 'committed', 4711), row(4, 'view', 3)];
    expect(check(new Rows(rows, [], 4))).toEqual(['parent-not-committed 2', 'missing-parent 3']);
  });

  test('half a usage is found whatever the kind, and an unknown kind says nothing about the usage', ({
    check,
  }) => {
    const rows = [
      { ...row(1, 'committed'), size: null },
      { ...row(2, 'active'), inodes: 1 },
      { ...row(3, 'view'), inodes: 1, size: 1 },
      { ...row(4, 'odd'), inodes: 1 },
    ];
    expect(check(new Rows(rows, [], 4))).toEqual([
      'kind-and-usage 1',
      'kind-and-usage 2',
      'kind-and-usage 3',
      'kind-unknown 4',
    ]);
  });

  test('only the work directory of a committed snapshot may be in the removal journal', ({ check }) => {
    const rows = [row(1, 'committed'), row(2, 'active'), row(3, 'committed')];
    const removals = [
      { id: 1, part: 'work', state: 'deleting' },
      { id: 2, part: 'work', state: 'deleting' },
      { id: 3, part: 'all', state: 'deleting' },
      { id: 4, part: 'all', state: 'deleting' },
    ];
    expect(check(new Rows(rows, removals, 4))).toEqual(['live-and-journalled 2', 'live-and-journalled 3']);
  });

  test('the high-water mark covers the ids of snapshots and of the removal journal', ({ check }) => {
    const removals = [{ id: 9, part: 'all', state: 'reserved' }];
    expect(check(new Rows([row(8, 'active')], [], 8))).toEqual([]);
    expect(check(new Rows([row(8, 'active')], [], 7))).toEqual(['high-water-low']);
    expect(check(new Rows([row(8, 'active')], removals, 8))).toEqual(['high-water-low']);
    expect(check(new Rows([], [], undefined))).toEqual(['high-water-low']);
    expect(check(new Rows([], [], 0))).toEqual([]);
  });

  test('a check that is limited to some ids finds nothing about others', ({ check }) => {
    const rows = [row(1, 'odd'), row(2, 'odd'), row(3, 'committed', 4711)];
    expect(check(new Rows(rows, [], 3), new Set([2]))).toEqual(['kind-unknown 2']);
  });
});
