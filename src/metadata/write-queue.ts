import { setImmediate as nextTurn } from 'node:timers/promises';
import type { Database } from 'better-sqlite3';
import { isFull } from '../errors.ts';
import { warn } from '../guarded.ts';
import { retryWhileBusy } from './busy.ts';
import type { Closing } from './closing.ts';
import type { SpareSpace } from './spare-space.ts';
import type { Transactor } from './transactor.ts';

/** How long one transaction takes in further writes, in milliseconds: meanwhile it holds the lock and the event loop. */
const BATCH_MS = 8;

/** One write that waits for its turn. */
interface Job {
  readonly work: () => unknown;
  /** Whether `work` must not be run a second time, even if the first run was rolled back. */
  readonly once: boolean;
  /** Whether it leads to space being freed, so that it must not fail when the disk is full. */
  readonly frees: boolean;
  readonly signal: AbortSignal | undefined;
  readonly resolve: (value: unknown) => void;
  readonly reject: (error: unknown) => void;
  started: boolean;
}

/** How a write is treated. */
export interface WriteOptions {
  /** Never run it a second time. */
  once?: boolean;
  /** It leads to space being freed: it may use the spare space when the disk is full. */
  frees?: boolean;
  /** Do not begin it any more once this has aborted. */
  signal?: AbortSignal | undefined;
}

interface WriteQueueOptions {
  readonly busyTimeout: number;
  readonly spareSpace: SpareSpace;
  /** Says when writes are not to wait for long any more. */
  readonly closing?: Closing;
  /** Called after each transaction with the number of writes that it held. */
  readonly onTransaction?: ((writes: number) => void) | undefined;
}

type Outcome = { readonly value: unknown } | { readonly error: unknown };

/**
 * Lets the writes that wait at the same moment share one transaction, and so one sync. Each has a savepoint within it,
 * so that it fails alone.
 */
export class WriteQueue {
  readonly #db: Database;
  readonly #transactor: Transactor;
  readonly #busyTimeout: number;
  readonly #spareSpace: SpareSpace;
  readonly #closing: Closing | undefined;
  readonly #onTransaction: WriteQueueOptions['onTransaction'];
  #waiting: Job[] = [];
  #draining: Promise<void> | undefined;

  constructor(db: Database, transactor: Transactor, options: WriteQueueOptions) {
    this.#db = db;
    this.#transactor = transactor;
    this.#busyTimeout = options.busyTimeout;
    this.#spareSpace = options.spareSpace;
    this.#closing = options.closing;
    this.#onTransaction = options.onTransaction;
  }

  /**
   * Runs `work` in the next transaction; it must be synchronous. Resolves to what it returned once that is
   * durable. It may be run again after an attempt that was rolled back as a whole, unless `once` is set.
   *
   * @throws what `work` throws, or the reason of `signal`
   * @throws {SnapshotError} UNAVAILABLE if the database stays locked, or a commit's outcome is unknown
   * @throws {SnapshotError} FAILED_PRECONDITION if the database stays locked and the store is being closed
   */
  write<T>(work: () => T, { once = false, frees = false, signal }: WriteOptions = {}): Promise<T> {
    return new Promise<T>((resolve, reject) => {
      this.#waiting.push({
        work,
        once,
        frees,
        signal,
        resolve: (value) => resolve(value as T),
        reject,
        started: false,
      });
      this.#draining ??= this.#drain();
    });
  }

  /** Resolves once nothing waits any more. */
  async idle(): Promise<void> {
    while (this.#draining !== undefined) await this.#draining;
  }

  async #drain(): Promise<void> {
    while (this.#waiting.length > 0) {
      // Writes of the same turn of the event loop share a transaction.
      await nextTurn();
      const batch = this.#waiting;
      this.#waiting = [];
      await this.#writeBatch(batch);
    }
    this.#draining = undefined;
  }

  async #writeBatch(batch: Job[]): Promise<void> {
    try {
      await this.#attempt(batch);
    } catch (error) {
      if (isFull(error)) await this.#writeEach(batch, error);
      else for (const job of batch) job.reject(error);
    }
  }

  /**
   * When the disk is full, what frees space must not fail together with what needs it: each write is tried alone, and
   * only what frees space gets the spare space.
   */
  async #writeEach(batch: Job[], full: unknown): Promise<void> {
    for (const job of batch) {
      if (job.once && job.started) {
        job.reject(full);
        continue;
      }
      await this.#attemptWhenFull(job).catch(job.reject);
    }
  }

  async #attemptWhenFull(job: Job): Promise<void> {
    if (job.frees) {
      this.#spareSpace.release();
      try {
        await this.#attempt([job]);
        return;
      } catch (error) {
        if (!isFull(error)) throw error;
      }
    }
    this.#checkpoint();
    await this.#attempt([job]);
  }

  /** Lets the WAL be used from its beginning again, where it already has its space. */
  #checkpoint(): void {
    try {
      this.#db.pragma('wal_checkpoint(restart)');
    } catch {
      // Where even that finds no room, the write after it says so.
    }
  }

  /** Commits a batch together and settles its promises. If it throws, nothing is done and no promise is settled. */
  async #attempt(batch: Job[]): Promise<void> {
    let outcomes: Outcome[] = [];
    const run = (): void => {
      const until = performance.now() + BATCH_MS;
      outcomes = [];
      for (const job of batch) {
        if (outcomes.length > 0 && performance.now() > until) return;
        outcomes.push(this.#runJob(job));
      }
    };
    const attempt = (): void => this.#transactor.run(run);
    await retryWhileBusy(attempt, this.#busyTimeout, 'waiting to write', this.#closing);
    this.#spareSpace.hold();
    for (const [index, job] of batch.entries()) {
      const outcome = outcomes[index];
      if (outcome === undefined) this.#waiting.push(job);
      else if ('error' in outcome) job.reject(outcome.error);
      else job.resolve(outcome.value);
    }
    this.#report(outcomes.length);
  }

  /** The writes are committed, whatever the caller's function does. */
  #report(writes: number): void {
    try {
      this.#onTransaction?.(writes);
    } catch (error) {
      warn(error, 'onTransaction has thrown');
    }
  }

  #runJob(job: Job): Outcome {
    try {
      job.signal?.throwIfAborted();
      job.started = true;
      return { value: this.#transactor.nested(job.work) };
    } catch (error) {
      // Where SQLite rolled back everything, the others failed along with this one.
      if (!this.#transactor.open) throw error;
      return { error };
    }
  }
}
