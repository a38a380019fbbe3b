import type { Database } from 'better-sqlite3';
import { SnapshotError, isFull } from '../errors.ts';

/**
 * Something outside the database that takes part in its transactions: directories, which are created with the
 * rows, made durable before COMMIT, and removed when the rows are rolled back.
 */
export interface Participant {
  /** Throws if the store is not in its place any more. Called while the write lock is held, right before COMMIT. */
  check(): void;
  /** How far this transaction has come, for `undo`. */
  mark(): number;
  /** Undoes everything since the mark. Called while the write lock is held. */
  undo(mark: number): void;
  /** Makes everything durable. Called while the write lock is held, right before COMMIT. */
  sync(): void;
  /** The transaction is over: committed, rolled back, or of an unknown outcome. */
  end(): void;
}

const alone: Participant = {
  check: () => {},
  mark: () => 0,
  undo: () => {},
  sync: () => {},
  end: () => {},
};

/**
 * Runs write transactions. All are IMMEDIATE: a deferred one that reads and then writes fails whenever somebody else
 * wrote in between.
 */
export class Transactor {
  readonly #db: Database;
  readonly #participant: Participant;
  readonly #begin;
  readonly #commit;
  readonly #rollback;
  readonly #touch;
  readonly #highWater;
  readonly #savepoint;
  readonly #release;
  readonly #rollbackTo;
  #unsettled = false;
  #rollbacks = 0;

  constructor(db: Database, participant: Participant = alone) {
    this.#db = db;
    this.#participant = participant;
    this.#begin = db.prepare('begin immediate');
    this.#commit = db.prepare('commit');
    this.#rollback = db.prepare('rollback');
    this.#highWater = db.prepare<[], number>('select id from high_water').pluck();
    this.#touch = db.prepare('update high_water set settlements = settlements + 1');
    // Savepoints within one another may have the same name: each statement means the innermost.
    this.#savepoint = db.prepare('savepoint part');
    this.#release = db.prepare('release part');
    this.#rollbackTo = db.prepare('rollback to part');
  }

  /** Whether a transaction is open. */
  get open(): boolean {
    return this.#db.inTransaction;
  }

  /** How many writes were rolled back so far. */
  get rollbacks(): number {
    return this.#rollbacks;
  }

  /**
   * Runs `body` in a transaction and commits it, durably. If `body` throws, all is rolled back, outside the
   * database too, before the lock is released.
   *
   * @throws {SnapshotError} UNAVAILABLE if COMMIT failed and the outcome is unknown, or that of an earlier one
   *   still is
   */
  run<T>(body: () => T): T {
    if (this.#unsettled) this.#settle();
    this.#begin.run();
    const mark = this.#participant.mark();
    const highWater = this.#highWater.get();
    try {
      const result = this.#attempt(body, mark);
      this.#finish(mark, highWater);
      return result;
    } finally {
      this.#participant.end();
    }
  }

  /** Runs `body` within the open transaction, so that if it throws, only what it did is rolled back. */
  nested<T>(body: () => T): T {
    const mark = this.#participant.mark();
    this.#savepoint.run();
    try {
      const result = body();
      this.#release.run();
      return result;
    } catch (error) {
      this.#rollbacks += 1;
      // SQLite may have rolled back everything. Then the lock is gone, and directories are no longer ours to undo.
      if (this.#db.inTransaction) {
        this.#rollbackTo.run();
        this.#release.run();
        this.#participant.undo(mark);
      }
      throw error;
    }
  }

  #attempt<T>(body: () => T, mark: number): T {
    try {
      const result = body();
      this.#participant.sync();
      this.#participant.check();
      return result;
    } catch (error) {
      this.#rollbacks += 1;
      if (this.#db.inTransaction) {
        this.#participant.undo(mark);
        this.#rollback.run();
      }
      throw error;
    }
  }

  #finish(mark: number, highWater: number | undefined): void {
    try {
      this.#commit.run();
    } catch (error) {
      this.#rollbacks += 1;
      if (this.#db.inTransaction) this.#rollback.run();
      // With no room for its frames a transaction is certainly not there.
      if (isFull(error)) {
        this.#undoLate(mark, highWater);
        throw error;
      }
      this.#unsettled = true;
      throw new SnapshotError('UNAVAILABLE', 'the outcome of the last write is unknown, its commit failed', {
        hint: 'look for the change again once a later write has succeeded',
        cause: error,
      });
    }
  }

  /**
   * When the disk is full, SQLite rolls back and releases the lock. Work outside the database is undone under a new lock,
   * if nobody has got the same ids meanwhile; if somebody has, the directories are theirs.
   */
  #undoLate(mark: number, highWater: number | undefined): void {
    try {
      this.#begin.run();
    } catch {
      return;
    }
    try {
      if (this.#highWater.get() === highWater) this.#participant.undo(mark);
    } finally {
      this.#rollback.run();
    }
  }

  /**
   * After a failed COMMIT its frames may or may not be in the WAL, and reading back cannot tell: only a
   * transaction after it that commits settles that it is gone, by taking its place in the WAL.
   */
  #settle(): void {
    this.#begin.run();
    try {
      this.#touch.run();
      this.#commit.run();
      this.#unsettled = false;
    } catch (error) {
      if (this.#db.inTransaction) this.#rollback.run();
      throw new SnapshotError('UNAVAILABLE', 'the outcome of an earlier write is still unknown', {
        hint: 'check the disk that holds the database',
        cause: error,
      });
    }
  }
}
