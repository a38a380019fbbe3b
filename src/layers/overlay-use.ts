import { lstatSync } from 'node:fs';
import { isUpperInUse } from '../linux/probe.ts';
import type { Layout } from './layout.ts';

/**
 * Identifies the last mount of an overlay that has a layer for its upper one; `undefined` if there was none. With each
 * mount, overlayfs makes a new directory in `work`.
 */
export function lastMount(layout: Layout, id: number): string | undefined {
  const made = lstatSync(`${layout.work(id)}/work`, { bigint: true, throwIfNoEntry: false });
  return made && `${made.ino} ${made.ctimeNs}`;
}

/** Whether a live overlay has a layer for its upper one; `undefined` if this process cannot find out. */
export async function isInOverlay(layout: Layout, id: number): Promise<boolean | undefined> {
  return lastMount(layout, id) === undefined ? false : isUpperInUse(layout.fs(id));
}
