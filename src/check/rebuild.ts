import type { Rebuild } from '../report.ts';
import { descriptionOf } from './findings.ts';
import type { Problem } from './problem.ts';
import type { Rows } from './rows.ts';

/** The ids of the snapshots whose own layer is damaged. */
export function damagedIds(problems: Iterable<Problem>, { snapshots }: Rows): Set<number> {
  const ids = new Set<number>();
  for (const { code, severity, id } of problems) {
    if (severity !== 'error' || id === undefined || !snapshots.has(id)) continue;
    if (descriptionOf(code).damagesLayer === true) ids.add(id);
  }
  return ids;
}

/** What has to be rebuilt: the snapshots with damaged layers and all their descendants, in the order of ids. */
export function rebuildOf(problems: Iterable<Problem>, rows: Rows): Rebuild[] {
  const children = childrenOf(rows);
  const because = new Map<number, number>();
  const queue = [...damagedIds(problems, rows)];
  for (const id of queue) because.set(id, id);
  // A loop over an array also visits what is added to it meanwhile.
  for (const id of queue) {
    for (const child of children.get(id) ?? []) {
      if (because.has(child)) continue;
      because.set(child, because.get(id) ?? id);
      queue.push(child);
    }
  }
  return [...because]
    .toSorted(([a], [b]) => a - b)
    .map(([id, cause]) => ({
      id,
      name: rows.nameOf(id),
      kind: rows.snapshots.get(id)?.kind ?? 'unknown',
      because: rows.nameOf(cause),
    }));
}

function childrenOf({ snapshots }: Rows): Map<number, number[]> {
  const children = new Map<number, number[]>();
  for (const { id, parentId } of snapshots.values()) {
    if (parentId === null) continue;
    const siblings = children.get(parentId);
    if (siblings === undefined) children.set(parentId, [id]);
    else siblings.push(id);
  }
  return children;
}
