import type { HeldRoot, Part } from '../layers/held-root.ts';
import { readBatchesOf } from '../linux/directory-entries.ts';
import { fdPath } from '../linux/tree-walk.ts';
import { plausibleId } from '../metadata/repair/plausible-id.ts';

/** The ids in the names of a directory's entries, without those that no store can have assigned. */
function* idsIn(held: HeldRoot, part: Part, pattern: RegExp): Generator<number, void, undefined> {
  if (!held.has(part)) return;
  for (const batch of readBatchesOf(fdPath(held.make(part)))) {
    for (const { text } of batch) {
      const id = plausibleId(Number(pattern.exec(text)?.[1]));
      if (id > 0) yield id;
    }
  }
}

/** The ids that are names in `snapshots/`. */
export function idsOnDisk(held: HeldRoot): number[] {
  return [...idsIn(held, 'snapshots', /^([1-9]\d{0,15})$/)];
}

/** The highest id in a name in `snapshots/` or `lost+found/`, or 0. */
export function highestIdOnDisk(held: HeldRoot): number {
  let highest = 0;
  for (const id of idsOnDisk(held)) highest = Math.max(highest, id);
  for (const id of idsIn(held, 'lost+found', /^snapshot-([1-9]\d{0,15})-/)) highest = Math.max(highest, id);
  return highest;
}
