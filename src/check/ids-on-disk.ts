import { existsSync } from 'node:fs';
import type { Layout } from '../layers/layout.ts';
import { readBatchesOf } from '../linux/directory.ts';

/** The ids that the names in a directory tell. */
function* idsIn(directory: string, pattern: RegExp): Generator<number, void, undefined> {
  if (!existsSync(directory)) return;
  for (const batch of readBatchesOf(directory)) {
    for (const { text } of batch) {
      const id = Number(pattern.exec(text)?.[1]);
      if (Number.isSafeInteger(id)) yield id;
    }
  }
}

/** The ids that directories in `snapshots/` are called after. */
export function idsOnDisk(layout: Layout): number[] {
  return [...idsIn(layout.snapshots, /^([1-9]\d{0,15})$/)];
}

/** The highest id that something in `snapshots/` or `lost+found/` is called after; 0 if nothing is. */
export function highestIdOnDisk(layout: Layout): number {
  let highest = 0;
  for (const id of idsOnDisk(layout)) highest = Math.max(highest, id);
  for (const id of idsIn(layout.lostAndFound, /^snapshot-([1-9]\d{0,15})-/)) highest = Math.max(highest, id);
  return highest;
}
