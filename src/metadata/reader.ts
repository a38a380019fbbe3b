import { dirname } from 'node:path';
import type { Database } from 'better-sqlite3';
import { checkName } from '../arguments.ts';
import { SnapshotError, toSnapshotError } from '../errors.ts';
import type { SnapshotRecord } from '../snapshot.ts';
import { DEFAULT_BUSY_TIMEOUT_MS } from './busy.ts';
import type { Span } from './listing.ts';
import { openDatabase } from './open.ts';
import { quote } from '../quote.ts';
import { RowReader } from './row-reader.ts';
import { StoreLock } from './store-lock.ts';
import type { Found, Removal } from './rows.ts';

/** How a store is opened by a service that uses the metadata alone. */
export interface MetadataOptions {
  /** How long a call waits for another process's lock, in milliseconds (default: 30,000). */
  busyTimeout?: number;
}

/**
 * Reads the metadata of a store. Every method is synchronous, and sees what was last committed, or, within a
 * transaction of the same store, what that has written so far.
 *
 * A key or name that is not a proper one fails with a `TypeError` or `INVALID_ARGUMENT`, a damaged database
 * with `DATA_LOSS`, one that others keep locked with `UNAVAILABLE`.
 */
export class MetadataReader {
  protected readonly db: Database;
  protected readonly rows: RowReader;
  readonly #lock: StoreLock | undefined;

  /** Takes a database that `openDatabase` has opened. */
  protected constructor(db: Database, lock?: StoreLock) {
    this.db = db;
    this.#lock = lock;
    this.rows = new RowReader(db);
  }

  /**
   * Opens a store's database for reading alone: on this connection, nothing can write.
   *
   * @throws {SnapshotError} FAILED_PRECONDITION if the database is missing, or of another version or application
   */
  static async openReader(file: string, options: MetadataOptions = {}): Promise<MetadataReader> {
    const { db, lock } = await openForService(file, true, options);
    return new MetadataReader(db, lock);
  }

  /**
   * All that the metadata knows of a snapshot.
   *
   * @throws {SnapshotError} NOT_FOUND
   */
  stat(keyOrName: string): SnapshotRecord {
    checkName(keyOrName, 'key or name');
    return this.read('reading a snapshot', () => this.rows.stat(keyOrName));
  }

  /** The snapshot of that id, or `undefined`. */
  statById(id: number): SnapshotRecord | undefined {
    return this.read('reading a snapshot', () => this.rows.statById(id));
  }

  /** Whether there is a snapshot of that key or name, of any kind. */
  exists(keyOrName: string): boolean {
    return this.lookUp(keyOrName) !== undefined;
  }

  /**
   * The name of the parent, or `null`.
   *
   * @throws {SnapshotError} NOT_FOUND
   */
  parent(keyOrName: string): string | null {
    return this.stat(keyOrName).parent;
  }

  /**
   * Id, kind, parent and usage of a snapshot, in one query.
   *
   * @throws {SnapshotError} NOT_FOUND
   */
  find(keyOrName: string): Found {
    checkName(keyOrName, 'key or name');
    return this.read('reading a snapshot', () => this.rows.find(keyOrName));
  }

  /** The same, or `undefined` if there is no snapshot of that key or name. */
  lookUp(keyOrName: string): Found | undefined {
    checkName(keyOrName, 'key or name');
    return this.read('reading a snapshot', () => this.rows.lookUp(keyOrName));
  }

  /**
   * The direct children, in the order of creation.
   *
   * @throws {SnapshotError} NOT_FOUND
   */
  children(name: string): SnapshotRecord[] {
    checkName(name, 'key or name');
    return this.read('reading children', () => this.rows.children(name));
  }

  /**
   * The ancestors, nearest first.
   *
   * @throws {SnapshotError} NOT_FOUND
   */
  chain(keyOrName: string): SnapshotRecord[] {
    checkName(keyOrName, 'key or name');
    return this.read('reading ancestors', () => this.rows.chain(keyOrName));
  }

  /** The ids of a snapshot and its ancestors, nearest first, joined by a separator; empty if it is not there. */
  lowers(id: number, separator: string): string {
    return this.read('reading ancestors', () => this.rows.lowers(id, separator));
  }

  /** Everything that descends from a snapshot, in the order of creation. */
  descendants(id: number): SnapshotRecord[] {
    return this.read('reading descendants', () => this.rows.descendants(id));
  }

  /**
   * The snapshots that any of the filters takes, or all, of the kinds asked for, in the order of creation and in
   * pages of a bounded size. It visits what was there when it began and is there still when it is reached;
   * between two pages the store may be written to.
   *
   * @throws {SnapshotError} INVALID_ARGUMENT if a filter does not parse, before the first page
   */
  pages(filters: readonly string[], span: Span = 'all'): IterableIterator<SnapshotRecord[]> {
    const pages = this.read('listing', () => this.rows.pages(filters, span));
    const next = (): IteratorResult<SnapshotRecord[]> => this.read('listing', () => pages.next());
    return {
      next,
      [Symbol.iterator]() {
        return this;
      },
    };
  }

  /**
   * The snapshots that any of the filters takes, or all, in the order of creation. The store may be written to
   * while it is consumed.
   *
   * @throws {SnapshotError} INVALID_ARGUMENT if a filter does not parse
   */
  *snapshots(...filters: string[]): Generator<SnapshotRecord, void, undefined> {
    for (const page of this.pages(filters)) yield* page;
  }

  /** The directories that are to be deleted from disk, in the order of ids, from after `afterId` on. */
  removals(afterId = 0, limit = 1000): Removal[] {
    return this.read('reading the removal journal', () => this.rows.removals(afterId, limit));
  }

  /** Whether an id's part is still to be deleted from disk. */
  isDeleting(removal: Removal): boolean {
    return this.read('reading the removal journal', () => this.rows.isDeleting(removal));
  }

  /** How many removals are still to be carried out on disk. */
  pendingRemovals(): number {
    return this.read('reading the removal journal', () => this.rows.pendingRemovals());
  }

  /** The ids that are reserved for copies, under way or abandoned. */
  reservations(): number[] {
    return this.read('reading the removal journal', () => this.rows.reservations());
  }

  /** The highest id that was ever handed out. */
  highWater(): number {
    return this.read('reading the high-water mark', () => this.rows.highWater());
  }

  /** The lines of the tree of snapshots, as the view `snapshot_tree` draws it. */
  tree(): string[] {
    return this.read('drawing the tree', () => this.rows.tree());
  }

  /** Closes the database. May be called more than once. */
  close(): void {
    this.db.close();
    this.#lock?.release();
  }

  /** Runs a read, and translates errors of SQLite. */
  protected read<T>(doing: string, body: () => T): T {
    if (!this.db.open) throw new SnapshotError('FAILED_PRECONDITION', 'the store is closed');
    try {
      return body();
    } catch (error) {
      throw toSnapshotError(error, doing);
    }
  }
}

/** Opens a database for synchronous use, in which SQLite itself waits for locks, and keeps it from being replaced. */
export async function openForService(
  file: string,
  readonly: boolean,
  { busyTimeout = DEFAULT_BUSY_TIMEOUT_MS }: MetadataOptions,
): Promise<{ db: Database; lock: StoreLock }> {
  let lock: StoreLock | undefined;
  try {
    lock = await StoreLock.share(dirname(file), busyTimeout);
    const db = await openDatabase(file, { readonly, busyTimeout });
    db.pragma(`busy_timeout = ${Math.trunc(busyTimeout)}`);
    return { db, lock };
  } catch (error) {
    lock?.release();
    throw toSnapshotError(error, `opening ${quote(file)}`);
  }
}
