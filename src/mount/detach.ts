import { Worker } from 'node:worker_threads';
import { type ErrorCode, SnapshotError } from '../errors.ts';
import { guarded } from '../guarded.ts';
import { threadProgram } from '../linux/worker-program.ts';
import type { OverlayByPath } from './overlay-by-path.ts';

/** What a thread is told to mount. */
export interface DetachRequest {
  readonly overlay: OverlayByPath;
  /** A directory to mount it on, in the thread's own mount namespace. */
  readonly place: string;
}

/** What a thread has done. */
export type DetachResult =
  | { readonly fd: number }
  | { readonly code: ErrorCode; readonly message: string; readonly hint: string | undefined };

/**
 * Mounts an overlay by the paths of its layers as a detached mount: for kernels that can mount it on a directory only. A
 * thread for this alone does it, in a mount namespace that nobody else is in: the file tree of this process, its working
 * directory and its umask stay shared among its other threads.
 *
 * @returns its descriptor
 * @throws {SnapshotError} FAILED_PRECONDITION if the kernel refuses
 */
export function detachOverlay(request: DetachRequest): Promise<number> {
  return new Promise((resolve, reject) => {
    const thread = new Worker(threadProgram, {
      workerData: request,
      execArgv: [],
      // It leaves a descriptor open, and closes others that Node has not opened.
      trackUnmanagedFds: false,
    });
    let result: DetachResult | undefined;
    const receive = (message: DetachResult): void => {
      result = message;
    };
    const end = (): void => {
      if (result === undefined) {
        reject(new SnapshotError('INTERNAL', 'the thread that mounts has ended'));
      } else if ('fd' in result) {
        resolve(result.fd);
      } else {
        const { code, message, hint } = result;
        reject(new SnapshotError(code, message, hint === undefined ? {} : { hint }));
      }
    };
    thread.once('message', guarded(receive, reject));
    thread.once('error', (error) => reject(error));
    thread.once('exit', guarded(end, reject));
  });
}
