import { MAX_LOWERS } from '../../mount/options.ts';
import type { SeenSnapshot } from '../../metadata/inspector.ts';
import { quoteWhole } from '../../names.ts';
import type { Subject } from '../subject.ts';

/** The rows among themselves: parents, kinds, and the removal journal. */
export function checkGraph(subject: Subject): void {
  const { snapshots, removals } = subject;
  subject.expect(snapshots.size + removals.size);
  const lowers = countLowers(snapshots);
  for (const row of snapshots.values()) {
    subject.looked();
    if (subject.wants(row.id)) checkRow(subject, row, lowers.get(row.id));
  }
  for (const [id, entries] of removals) {
    subject.looked();
    const row = snapshots.get(id);
    if (row === undefined || !subject.wants(id)) continue;
    for (const { part } of entries) {
      if (part === 'work' && row.kind === 'committed') continue;
      subject.add('live-and-journalled', {
        message: `${subject.quote(id)} is there, and journalled as to be deleted (${part})`,
        id,
      });
    }
  }
  checkHighWater(subject);
}

function checkRow(subject: Subject, row: SeenSnapshot, lowers: number | 'cycle' | undefined): void {
  const { id, kind, parentId, inodes, size } = row;
  const me = subject.quote(id);
  const parent = parentId === null ? undefined : subject.snapshots.get(parentId);
  if (parentId !== null && parent === undefined) {
    subject.add('missing-parent', { message: `the parent of ${me}, id ${parentId}, is not there`, id });
  } else if (parent !== undefined && parent.kind !== 'committed') {
    subject.add('parent-not-committed', {
      message: `the parent of ${me}, ${subject.quote(parent.id)}, is not committed but ${parent.kind}`,
      id,
    });
  }
  if (lowers === 'cycle') {
    subject.add('cycle', { message: `${me} is its own ancestor, or stands on one that is`, id });
  } else if (lowers !== undefined && lowers > MAX_LOWERS && kind !== 'committed') {
    subject.add('chain-too-long', {
      message: `${me} stands on ${lowers} layers, overlayfs stacks no more than ${MAX_LOWERS}`,
      id,
    });
  }
  if (kind !== 'active' && kind !== 'view' && kind !== 'committed') {
    subject.add('kind-unknown', { message: `${me} is of no known kind but ${quoteWhole(kind)}`, id });
    return;
  }
  const measured = [inodes, size].filter((value) => value !== null).length;
  if (measured !== (kind === 'committed' ? 2 : 0)) {
    subject.add('kind-and-usage', {
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

function checkHighWater(subject: Subject): void {
  const { snapshots, removals, highWater } = subject;
  let highest = 0;
  for (const ids of [snapshots.keys(), removals.keys()])
    for (const id of ids) highest = Math.max(highest, id);
  if (highWater !== undefined && highWater >= highest) return;
  subject.add('high-water-low', {
    message:
      highWater === undefined
        ? 'the mark of the highest id is missing'
        : `the mark of the highest id is ${highWater}, but ${highest} was used: ids would be given out again`,
    path: subject.layout.database,
  });
}
