import { isBusy } from '../errors.ts';
import { toStoreError } from '../layers/disk-failure.ts';
import type { HeldRoot } from '../layers/held-root.ts';
import { retryWhileBusy } from '../metadata/busy.ts';
import type { Closing } from '../metadata/closing.ts';
import type { WriteOptions, WriteQueue } from '../metadata/write-queue.ts';

/**
 * The way from a call to the database: it waits while others hold a lock, translates errors, keeps count of what is
 * under way, and refuses new calls once the driver is being closed.
 */
export class Access {
  readonly #root: HeldRoot;
  readonly #queue: WriteQueue;
  readonly #busyTimeout: number;
  readonly #closing: Closing;
  readonly #running = new Set<Promise<unknown>>();

  constructor(root: HeldRoot, queue: WriteQueue, busyTimeout: number, closing: Closing) {
    this.#root = root;
    this.#queue = queue;
    this.#busyTimeout = busyTimeout;
    this.#closing = closing;
  }

  /** Runs a read for a call. */
  async read<T>(doing: string, body: () => T): Promise<T> {
    this.#closing.checkOpen();
    return this.readOn(doing, body);
  }

  /** Runs a write for a call, in a transaction, and resolves once it is durable. */
  async write<T>(doing: string, body: () => T, options?: WriteOptions): Promise<T> {
    this.#closing.checkOpen();
    return this.writeOn(doing, body, options);
  }

  /** Runs a call of more than one step. It is finished even if the driver is closed meanwhile. */
  async run<T>(steps: () => Promise<T>): Promise<T> {
    this.#closing.checkOpen();
    const running = steps();
    this.#running.add(running);
    try {
      return await running;
    } finally {
      this.#running.delete(running);
    }
  }

  /** Runs a read as a further step of a call. It waits only while others recover the database. */
  async readOn<T>(doing: string, body: () => T): Promise<T> {
    try {
      return body();
    } catch (error) {
      if (!isBusy(error)) throw toStoreError(error, doing, this.#root);
    }
    try {
      return await retryWhileBusy(body, this.#busyTimeout, doing, this.#closing);
    } catch (error) {
      throw toStoreError(error, doing, this.#root);
    }
  }

  /** Runs a write as a further step of a call. */
  async writeOn<T>(doing: string, body: () => T, options?: WriteOptions): Promise<T> {
    try {
      return await this.#queue.write(body, options);
    } catch (error) {
      throw isReason(error, options?.signal) ? error : toStoreError(error, doing, this.#root);
    }
  }

  /**
   * Lets no further call begin, and waits for those of several steps and for all writes. What waits for another
   * process's lock fails if it does not get it soon.
   */
  async close(): Promise<void> {
    this.#closing.begin();
    while (this.#running.size > 0) await Promise.allSettled(this.#running);
    await this.#queue.idle();
  }
}

/** Whether an error is the reason that a signal was aborted with. */
export function isReason(error: unknown, signal: AbortSignal | undefined): boolean {
  return signal?.aborted === true && error === signal.reason;
}
