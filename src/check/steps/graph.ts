import { MAX_LOWERS } from '../../mount/options.ts';
import { plausibleId } from '../../metadata/repair/plausible-id.ts';
import type { SeenSnapshot } from '../../metadata/repair/inspector.ts';
import { type CheckContext, isWanted } from '../context.ts';

/** Checks the rows against each other: parents, kinds, usages, the removal journal and the high-water mark. */
export function checkGraph(context: CheckContext): void {
  const { rows, progress, problems } = context;
  const { snapshots, removals } = rows;
  progress.expect(snapshots.size + removals.size);
  const lowers = countLowers(snapshots);
  for (const row of snapshots.values()) {
    progress.advance();
    if (isWanted(context, row.id)) checkRow(context, row, lowers.get(row.id));
  }
  for (const [id, entries] of removals) {
    progress.advance();
    const row = snapshots.get(id);
    if (row === undefined || !isWanted(context, id)) continue;
    for (const { part } of entries) {
      if (part === 'work' && row.kind === 'committed') continue;
      problems.add('live-and-journalled', { snapshot: rows.quote(id), part, id });
    }
  }
  checkHighWater(context);
}

function checkRow(
  { rows, problems }: CheckContext,
  row: SeenSnapshot,
  lowers: number | 'cycle' | undefined,
): void {
  const { id, kind, parentId, inodes, size } = row;
  const snapshot = rows.quote(id);
  const parent = parentId === null ? undefined : rows.snapshots.get(parentId);
  if (parentId !== null && parent === undefined) {
    problems.add('missing-parent', { snapshot, parentId, id });
  } else if (parent !== undefined && parent.kind !== 'committed') {
    problems.add('parent-not-committed', { snapshot, parent: rows.quote(parent.id), kind: parent.kind, id });
  }
  if (lowers === 'cycle') {
    problems.add('cycle', { snapshot, id });
  } else if (lowers !== undefined && lowers > MAX_LOWERS && kind !== 'committed') {
    problems.add('chain-too-long', { snapshot, lowers, most: MAX_LOWERS, id });
  }
  if (kind !== 'active' && kind !== 'view' && kind !== 'committed') {
    problems.add('kind-unknown', { snapshot, kind, id });
    return;
  }
  const measured = [inodes, size].filter((value) => value !== null).length;
  if (measured !== (kind === 'committed' ? 2 : 0)) problems.add('kind-and-usage', { snapshot, kind, id });
}

/** The number of ancestors of each snapshot, in which a missing one counts as one; `cycle` if there is no end. */
function countLowers(snapshots: ReadonlyMap<number, SeenSnapshot>): Map<number, number | 'cycle'> {
  const lowers = new Map<number, number | 'cycle'>();
  for (const { id } of snapshots.values()) {
    const path = new Set<number>();
    let at: number | null = id;
    let count: number | 'cycle' = -1;
    while (at !== null) {
      const known = lowers.get(at);
      if (known !== undefined || path.has(at)) {
        count = known ?? 'cycle';
        break;
      }
      path.add(at);
      at = snapshots.get(at)?.parentId ?? null;
    }
    for (const passed of [...path].toReversed()) {
      count = count === 'cycle' ? 'cycle' : count + 1;
      lowers.set(passed, count);
    }
  }
  return lowers;
}

function checkHighWater({ rows, layout, problems }: CheckContext): void {
  const { snapshots, removals, highWater } = rows;
  let highest = 0;
  for (const id of snapshots.keys()) highest = Math.max(highest, id);
  const mark = Math.max(highWater ?? 0, rows.sequence);
  if (highest > 0 && plausibleId(highest) === 0) {
    problems.add('high-water-high', { mark: highest, holder: rows.quote(highest), id: highest });
    return;
  }
  if (mark > 0 && plausibleId(mark) === 0) {
    problems.add('high-water-high', { mark, holder: undefined, path: layout.database });
    return;
  }
  for (const id of removals.keys()) highest = Math.max(highest, plausibleId(id));
  if (highWater !== undefined && highWater >= highest) return;
  problems.add('high-water-low', { highWater, highest, path: layout.database });
}
