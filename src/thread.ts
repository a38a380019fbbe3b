/**
 * The program of a thread that makes one detached mount. The caller's side is `mount/detach.ts`.
 */
import { closeSync, constants, openSync } from 'node:fs';
import { parentPort, workerData } from 'node:worker_threads';
import { SnapshotError } from './errors.ts';
import { O_PATH } from './linux/foreign.ts';
import { cloneMounts } from './linux/mount-calls.ts';
import { inNewMountNamespace } from './linux/namespace.ts';
import type { DetachRequest, DetachResult } from './mount/detach.ts';
import { toMountError } from './mount/mount-error.ts';
import { mountByPathSync } from './mount/overlay-by-path.ts';

/** Mounts, and clones the mount: the clone outlives the namespace. */
function perform({ overlay, place }: DetachRequest): DetachResult {
  try {
    const fd = inNewMountNamespace(() => {
      mountByPathSync(overlay, place);
      const mounted = openSync(place, O_PATH | constants.O_DIRECTORY);
      try {
        return cloneMounts(mounted, { recursive: false });
      } finally {
        closeSync(mounted);
      }
    });
    return { fd };
  } catch (error) {
    const failure = toMountError(error, 'mounting');
    const { message } = failure;
    if (!(failure instanceof SnapshotError)) return { code: 'INTERNAL', message, hint: undefined };
    return { code: failure.code, message, hint: failure.hint };
  }
}

// oxlint-disable-next-line unicorn/require-post-message-target-origin -- that is of windows, and a thread has no origin.
parentPort?.postMessage(perform(workerData as DetachRequest));
