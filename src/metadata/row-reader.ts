import type { Database } from 'better-sqlite3';
import { SnapshotError } from '../errors.ts';
import { quote } from '../quote.ts';
import type { SnapshotRecord } from '../snapshot.ts';
import { Listing, type Span } from './listing.ts';
import { prepareReads } from './read-statements.ts';
import { type FoundSnapshot, type Removal, describeKind, toFound, toRecord } from './rows.ts';

/**
 * Reads rows. Names have been checked before, and errors of SQLite are translated by the caller.
 *
 * `lookUp` gives `undefined` for what is not there, `find` and `stat` throw. `lookUp` and `find` read what an
 * operation needs to decide, `stat` the whole record.
 */
export class RowReader {
  readonly #statements: ReturnType<typeof prepareReads>;
  readonly #listing: Listing;

  constructor(db: Database) {
    this.#statements = prepareReads(db);
    this.#listing = new Listing(db);
  }

  /** Id, kind, parent and usage of a snapshot, or `undefined`. */
  lookUp(keyOrName: string): FoundSnapshot | undefined {
    const row = this.#statements.find.get(keyOrName);
    return row && toFound(keyOrName, row);
  }

  /**
   * Id, kind, parent and usage of a snapshot.
   *
   * @throws {SnapshotError} NOT_FOUND
   */
  find(keyOrName: string): FoundSnapshot {
    const found = this.lookUp(keyOrName);
    if (found === undefined) throw notFound(keyOrName);
    return found;
  }

  /**
   * The same of an active snapshot.
   *
   * @throws {SnapshotError} NOT_FOUND
   * @throws {SnapshotError} FAILED_PRECONDITION if it is a view or committed
   */
  findActive(key: string): FoundSnapshot {
    const found = this.find(key);
    if (found.kind === 'active') return found;
    throw new SnapshotError('FAILED_PRECONDITION', `${quote(key)} is not active but ${describeKind(found)}`);
  }

  /**
   * Looks whether a key or name is free.
   *
   * @throws {SnapshotError} ALREADY_EXISTS
   */
  checkFree(keyOrName: string): void {
    if (this.lookUp(keyOrName) === undefined) return;
    throw new SnapshotError('ALREADY_EXISTS', `${quote(keyOrName)} is taken`);
  }

  /**
   * All that the metadata knows of a snapshot.
   *
   * @throws {SnapshotError} NOT_FOUND
   */
  stat(keyOrName: string): SnapshotRecord {
    const row = this.#statements.stat.get(keyOrName);
    if (row === undefined) throw notFound(keyOrName);
    return toRecord(row);
  }

  /** The snapshot of that id, or `undefined`. */
  statById(id: number): SnapshotRecord | undefined {
    const row = this.#statements.statById.get(id);
    return row && toRecord(row);
  }

  /**
   * The direct children, in the order of creation.
   *
   * @throws {SnapshotError} NOT_FOUND
   */
  children(name: string): SnapshotRecord[] {
    return this.#statements.children.all(this.find(name).id).map(toRecord);
  }

  /** The name of a child, if there is one. */
  firstChild(id: number): string | undefined {
    return this.#statements.firstChild.get(id);
  }

  /**
   * The ancestors, nearest first.
   *
   * @throws {SnapshotError} NOT_FOUND
   */
  chain(keyOrName: string): SnapshotRecord[] {
    return this.#statements.chain.all(this.find(keyOrName).parentId).map(toRecord);
  }

  /** The ids of a snapshot and its ancestors, nearest first, joined by a separator; empty if it is not there. */
  lowers(id: number, separator: string): string {
    return this.#statements.lowers.get(id, separator) ?? '';
  }

  /** Everything that descends from a snapshot, in the order of creation. */
  descendants(id: number): SnapshotRecord[] {
    return this.#statements.descendants.all(id).map(toRecord);
  }

  /** See `MetadataReader.pages`. */
  pages(filters: readonly string[], span: Span): Iterator<SnapshotRecord[]> {
    return this.#listing.pages(filters, span);
  }

  /** The directories that are to be deleted from disk, in the order of ids, from after `afterId` on. */
  removals(afterId: number, limit: number): Removal[] {
    return this.#statements.removals.all(afterId, limit);
  }

  /** Whether an id's part is still to be deleted from disk. */
  isDeleting({ id, part }: Removal): boolean {
    return this.#statements.isDeleting.get(id, part) !== undefined;
  }

  /** How many removals are still to be carried out on disk. */
  pendingRemovals(): number {
    return this.#statements.pendingRemovals.get() ?? 0;
  }

  /** The ids that are reserved for copies, under way or abandoned. */
  reservations(): number[] {
    return this.#statements.reservations.all();
  }

  /** Whether an id is reserved for a copy. */
  isReserved(id: number): boolean {
    return this.#statements.isReserved.get(id) !== undefined;
  }

  /** The highest id that was ever handed out. */
  highWater(): number {
    return this.#statements.highWater.get() ?? 0;
  }

  /** The lines of the tree of snapshots, as the view `snapshot_tree` draws it. */
  tree(): string[] {
    return this.#statements.tree.all();
  }
}

/** The error for a key or name that is not there. */
function notFound(keyOrName: string): SnapshotError {
  return new SnapshotError('NOT_FOUND', `there is no snapshot ${quote(keyOrName)}`);
}
