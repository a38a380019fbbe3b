import { closeSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { openDirectoryBeneath, tryLock } from '../linux/file-calls.ts';
import { cString } from '../linux/foreign.ts';
import type { HeldRoot } from './held-root.ts';

/** How long a deletion waits for a moment in which nothing is being mounted, in milliseconds. */
const PATIENCE_MS = 2000;

/**
 * The lock on `snapshots/`. A mount shares it with other mounts, from before it reads the rows of its layers until the
 * kernel lists it. A deletion takes it for a moment before it looks for mounts. Then every mount that has read the row
 * of the removed snapshot is listed, and later ones do not find that row.
 */
export class MountGate {
  readonly #root: HeldRoot;

  constructor(root: HeldRoot) {
    this.#root = root;
  }

  /** Lets a mount begin; it ends when the result is disposed of. */
  async enter(): Promise<Disposable> {
    const fd = this.#open();
    try {
      // A deletion has it for a few microseconds only.
      while (!tryLock(fd, { shared: true })) await sleep(1);
    } catch (error) {
      closeSync(fd);
      throw error;
    }
    return { [Symbol.dispose]: () => closeSync(fd) };
  }

  /** Waits until every mount that has begun is listed. @returns whether that has come true in time */
  async drain(): Promise<boolean> {
    const until = performance.now() + PATIENCE_MS;
    const fd = this.#open();
    try {
      for (;;) {
        if (tryLock(fd)) return true;
        if (performance.now() > until) return false;
        await sleep(1);
      }
    } finally {
      closeSync(fd);
    }
  }

  #open(): number {
    // Opened each time, since the lock belongs to what is open.
    return openDirectoryBeneath(this.#root.snapshots, cString('.'));
  }
}
