import { lstatSync } from 'node:fs';
import { isUpperInUse } from '../linux/probe.ts';
import type { Layout } from './layout.ts';

/**
 * What tells the last mount of an overlay on a layer from every other; `undefined` if there has been none. With each
 * mount, overlayfs makes a directory in `work` anew.
 */
export function lastMount(layout: Layout, id: number): string | undefined {
  const made = lstatSync(`${layout.work(id)}/work`, { bigint: true, throwIfNoEntry: false });
  return made && `${made.ino} ${made.ctimeNs}`;
}

/** Whether a live overlay has a layer for its upper one; `undefined` if that cannot be found out. */
export async function isInOverlay(layout: Layout, id: number): Promise<boolean | undefined> {
  return lastMount(layout, id) === undefined ? false : isUpperInUse(layout.fs(id));
}
