import { isSystemError } from '../linux/errno.ts';
import { DirectoryLock } from './directory-lock.ts';
import type { HeldRoot } from './held-root.ts';
import { isInOverlay } from './overlay-use.ts';

/**
 * The label of a workspace that was made for one command. The process that made it holds the lock on its layer for as
 * long as it lives, from before anybody else can see the workspace.
 */
export const RUN_LABEL = 'overlite/run';

/** What becomes of such a workspace: the value of its label. */
export const RUN_PURPOSES = ['throw-away', 'commit'] as const;

export type RunPurpose = (typeof RUN_PURPOSES)[number];

/**
 * Whether a workspace was left behind by a process that was killed, together with its command: nobody holds the lock on
 * its layer, and no overlay writes to it in any mount namespace.
 *
 * @returns `undefined` where this process cannot find out whether an overlay does
 */
export async function isAbandoned(root: HeldRoot, id: number): Promise<boolean | undefined> {
  try {
    const lock = DirectoryLock.takeLayer(root, id);
    if (lock === undefined) return false;
    lock.release();
    const inUse = await isInOverlay(root, id);
    return inUse === undefined ? undefined : !inUse;
  } catch (error) {
    // Without its layer it is damaged, which is another matter.
    if (isSystemError(error)) return false;
    throw error;
  }
}
