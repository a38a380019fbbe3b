import { MAX_LOWERS } from '../../mount/options.ts';
import type { SeenSnapshot } from '../../metadata/repair/inspector.ts';
import { quoteWhole } from '../../quote.ts';
import type { CheckContext } from '../context.ts';

/** The rows among themselves: parents, kinds, and the removal journal. */
export function checkGraph(context: CheckContext): void {
  const { snapshots, removals } = context;
  context.expect(snapshots.size + removals.size);
  const lowers = countLowers(snapshots);
  for (const row of snapshots.values()) {
    context.looked();
    if (context.wants(row.id)) checkRow(context, row, lowers.get(row.id));
  }
  for (const [id, entries] of removals) {
    context.looked();
    const row = snapshots.get(id);
    if (row === undefined || !context.wants(id)) continue;
    for (const { part } of entries) {
      if (part === 'work' && row.kind === 'committed') continue;
      context.add('live-and-journalled', {
        message: `${context.quote(id)} is there, and journalled as to be deleted (${part})`,
        id,
      });
    }
  }
  checkHighWater(context);
}

function checkRow(context: CheckContext, row: SeenSnapshot, lowers: number | 'cycle' | undefined): void {
  const { id, kind, parentId, inodes, size } = row;
  const me = context.quote(id);
  const parent = parentId === null ? undefined : context.snapshots.get(parentId);
  if (parentId !== null && parent === undefined) {
    context.add('missing-parent', { message: `the parent of ${me}, id ${parentId}, is not there`, id });
  } else if (parent !== undefined && parent.kind !== 'committed') {
    context.add('parent-not-committed', {
      message: `the parent of ${me}, ${context.quote(parent.id)}, is not committed but ${parent.kind}`,
      id,
    });
  }
  if (lowers === 'cycle') {
    context.add('cycle', { message: `${me} is its own ancestor, or stands on one that is`, id });
  } else if (lowers !== undefined && lowers > MAX_LOWERS && kind !== 'committed') {
    context.add('chain-too-long', {
      message: `${me} stands on ${lowers} layers, overlayfs stacks no more than ${MAX_LOWERS}`,
      id,
    });
  }
  if (kind !== 'active' && kind !== 'view' && kind !== 'committed') {
    context.add('kind-unknown', { message: `${me} is of no known kind but ${quoteWhole(kind)}`, id });
    return;
  }
  const measured = [inodes, size].filter((value) => value !== null).length;
  if (measured !== (kind === 'committed' ? 2 : 0)) {
    context.add('kind-and-usage', {
      message: kind === 'committed' ? `${me} is committed without a usage` : `${me} is ${kind} with a usage`,
      id,
    });
  }
}

/** How many layers each snapshot stands on; a cycle has no end. */
function countLowers(snapshots: ReadonlyMap<number, SeenSnapshot>): Map<number, number | 'cycle'> {
  const lowers = new Map<number, number | 'cycle'>();
  for (const { id } of snapshots.values()) {
    const path: number[] = [];
    const onPath = new Set<number>();
    let at: number | null = id;
    let below: number | 'cycle' = -1;
    while (at !== null) {
      const known = lowers.get(at);
      if (known !== undefined) {
        below = known;
        break;
      }
      if (onPath.has(at)) {
        below = 'cycle';
        break;
      }
      const row = snapshots.get(at);
      // Of one that is missing nothing is known: it counts as a layer.
      path.push(at);
      onPath.add(at);
      at = row?.parentId ?? null;
    }
    for (const passed of path.toReversed()) {
      below = below === 'cycle' ? 'cycle' : below + 1;
      lowers.set(passed, below);
    }
  }
  return lowers;
}

function checkHighWater(context: CheckContext): void {
  const { snapshots, removals, highWater } = context;
  let highest = 0;
  for (const ids of [snapshots.keys(), removals.keys()])
    for (const id of ids) highest = Math.max(highest, id);
  if (highWater !== undefined && highWater >= highest) return;
  context.add('high-water-low', {
    message:
      highWater === undefined
        ? 'the mark of the highest id is missing'
        : `the mark of the highest id is ${highWater}, but ${highest} was used: ids would be given out again`,
    path: context.layout.database,
  });
}
