import { lstatSync } from 'node:fs';
import type { Layout } from '../layers/layout.ts';
import { readBatchesOf } from '../linux/directory-entries.ts';
import { plausibleId } from '../metadata/repair/plausible-id.ts';

/** The ids in the names of a directory's entries, without those that no store can have assigned. */
function* idsIn(directory: string, pattern: RegExp): Generator<number, void, undefined> {
  if (lstatSync(directory, { throwIfNoEntry: false })?.isDirectory() !== true) return;
  for (const batch of readBatchesOf(directory)) {
    for (const { text } of batch) {
      const id = plausibleId(Number(pattern.exec(text)?.[1]));
      if (id > 0) yield id;
    }
  }
}

/** The ids that are names in `snapshots/`. */
export function idsOnDisk(layout: Layout): number[] {
  return [...idsIn(layout.snapshots, /^([1-9]\d{0,15})$/)];
}

/** The highest id in a name in `snapshots/` or `lost+found/`, or 0. */
export function highestIdOnDisk(layout: Layout): number {
  let highest = 0;
  for (const id of idsOnDisk(layout)) highest = Math.max(highest, id);
  for (const id of idsIn(layout.lostAndFound, /^snapshot-([1-9]\d{0,15})-/)) highest = Math.max(highest, id);
  return highest;
}
