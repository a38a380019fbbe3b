import { closeSync } from 'node:fs';
import { unlessGone } from '../linux/errno.ts';
import { FileStatus } from '../linux/file-status.ts';
import { cString } from '../linux/foreign.ts';
import { isUpperInUse } from '../linux/probe.ts';
import { fdPath } from '../linux/tree-walk.ts';
import type { HeldRoot } from './held-root.ts';

/**
 * Identifies the last mount of an overlay that has a layer for its upper one; `undefined` if there was none. With each
 * mount, overlayfs makes a new directory in `work`.
 */
export function lastMount(root: HeldRoot, id: number): string | undefined {
  const status = new FileStatus();
  const isThere = unlessGone(() => root.with(id, 'work', (work) => status.read(work, cString('work'))));
  return isThere === true ? status.version.toString('hex') : undefined;
}

/**
 * Whether a live overlay has a layer for its upper one; `undefined` if this process cannot find out.
 *
 * @throws a system error if the layer is missing
 */
export async function isInOverlay(root: HeldRoot, id: number): Promise<boolean | undefined> {
  if (lastMount(root, id) === undefined) return false;
  const layer = root.open(id, 'fs');
  try {
    return await isUpperInUse(`${fdPath(layer)}/.`);
  } finally {
    closeSync(layer);
  }
}
