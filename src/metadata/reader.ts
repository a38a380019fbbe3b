import type { Database, Statement } from 'better-sqlite3';
import { SnapshotError, toSnapshotError } from '../errors.ts';
import { checkName } from '../arguments.ts';
import { quote } from '../quote.ts';
import type { Kind, SnapshotRecord, Usage } from '../snapshot.ts';
import { DEFAULT_BUSY_TIMEOUT_MS } from './busy.ts';
import { Listing, type Span } from './listing.ts';
import { openDatabase } from './open.ts';
import { RECORD, type RecordRow, toKind, toRecord } from './rows.ts';

/** What is found of a snapshot by its key or name, enough to decide what may be done with it. */
export interface Found {
  readonly id: number;
  readonly name: string;
  readonly kind: Kind;
  readonly parentId: number | null;
  /** As measured at commit; `null` while it is open. */
  readonly usage: Usage | null;
  /** Of a volatile one, the boot in which it was last mounted, or else made; `null` if it is not volatile. */
  readonly volatileBoot: string | null;
}

/** An entry of the removal journal that is to be deleted from disk. */
export interface Removal {
  readonly id: number;
  readonly part: 'all' | 'work';
}

type FoundRow = [
  id: number,
  kind: string,
  parentId: number | null,
  inodes: number | null,
  size: number | null,
  volatileBoot: string | null,
];

/** How a store is opened by a service that uses the metadata alone. */
export interface MetadataOptions {
  /** How long a call waits for another process's lock, in milliseconds; 30,000 unless given. */
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
  readonly #listing: Listing;
  readonly #find: Statement<[string], FoundRow>;
  readonly #stat: Statement<[string], RecordRow>;
  readonly #statById: Statement<[number], RecordRow>;
  readonly #children: Statement<[number], RecordRow>;
  readonly #firstChild: Statement<[number], string>;
  readonly #chain: Statement<[number | null], RecordRow>;
  readonly #lowers: Statement<[number, string], string | null>;
  readonly #descendants: Statement<[number], RecordRow>;
  readonly #removals: Statement<[number, number], Removal>;
  readonly #isDeleting: Statement<[number, string], number>;
  readonly #reservations: Statement<[], number>;
  readonly #pendingRemovals: Statement<[], number>;
  readonly #highWater: Statement<[], number>;
  readonly #tree: Statement<[], string>;

  /** Takes a database that `openDatabase` has opened. */
  protected constructor(db: Database) {
    this.db = db;
    this.#listing = new Listing(db);
    this.#find = db
      .prepare<[string], FoundRow>(`
      select id, kind, parent_id, inodes, size, volatile_boot
        from snapshot
       where name = ?`)
      .raw();
    this.#stat = db
      .prepare<[string], RecordRow>(`
      select ${RECORD}
        from snapshot
        left join snapshot as parent on parent.id = snapshot.parent_id
       where snapshot.name = ?`)
      .raw();
    this.#statById = db
      .prepare<[number], RecordRow>(`
      select ${RECORD}
        from snapshot
        left join snapshot as parent on parent.id = snapshot.parent_id
       where snapshot.id = ?`)
      .raw();
    this.#children = db
      .prepare<[number], RecordRow>(`
      select ${RECORD}
        from snapshot
        join snapshot as parent on parent.id = snapshot.parent_id
       where snapshot.parent_id = ?
       order by snapshot.id`)
      .raw();
    this.#firstChild = db
      .prepare<[number], string>('select name from snapshot where parent_id = ? limit 1')
      .pluck();
    // Upwards, nearest first. There is one row in the queue of a recursion at any time, so the rows come in the order of
    // the chain; a cycle in a damaged database ends it, since UNION takes each row once.
    this.#chain = db
      .prepare<[number | null], RecordRow>(`
      with recursive chain (id, parent_id) as (
        select id, parent_id from snapshot where id = ?
        union
        select snapshot.id, snapshot.parent_id
          from chain
          join snapshot on snapshot.id = chain.parent_id
      )
      select ${RECORD}
        from chain
        cross join snapshot on snapshot.id = chain.id
        left join snapshot as parent on parent.id = snapshot.parent_id`)
      .raw();
    // One string, since each row of its own would cost as much again to bring over. The bound is a little more than
    // overlayfs can stack, and ends a cycle too.
    this.#lowers = db
      .prepare<[number, string], string | null>(`
      with recursive chain (id, parent_id) as (
        select id, parent_id from snapshot where id = ?
        union all
        select snapshot.id, snapshot.parent_id
          from chain
          join snapshot on snapshot.id = chain.parent_id
         limit 512
      )
      select group_concat(id, ?) from chain`)
      .pluck();
    // A cross join keeps this order: for the sake of the sorting, SQLite would rather go through all snapshots.
    this.#descendants = db
      .prepare<[number], RecordRow>(`
      with recursive descendant (id) as (
        select id from snapshot where parent_id = ?
        union
        select snapshot.id
          from descendant
          join snapshot on snapshot.parent_id = descendant.id
      )
      select ${RECORD}
        from descendant
        cross join snapshot on snapshot.id = descendant.id
        left join snapshot as parent on parent.id = snapshot.parent_id
       order by snapshot.id`)
      .raw();
    this.#removals = db.prepare(`
      select id, part
        from removal
       where state = 'deleting'
         and id > ?
       order by id, part
       limit ?`);
    this.#isDeleting = db
      .prepare<[number, string], number>(
        `select 1 from removal where id = ? and part = ? and state = 'deleting'`,
      )
      .pluck();
    this.#reservations = db
      .prepare<[], number>(`select id from removal where state = 'reserved' order by id`)
      .pluck();
    this.#pendingRemovals = db
      .prepare<[], number>(`select count(*) from removal where state = 'deleting'`)
      .pluck();
    this.#highWater = db.prepare<[], number>('select id from high_water').pluck();
    this.#tree = db.prepare<[], string>('select tree from snapshot_tree').pluck();
  }

  /**
   * Opens a store's database for reading alone: on this connection, nothing can write.
   *
   * @throws {SnapshotError} FAILED_PRECONDITION if there is none, or it is of another version or application
   */
  static async openReader(file: string, options: MetadataOptions = {}): Promise<MetadataReader> {
    return new MetadataReader(await openForService(file, true, options));
  }

  /**
   * All that is known of a snapshot.
   *
   * @throws {SnapshotError} NOT_FOUND
   */
  stat(keyOrName: string): SnapshotRecord {
    return this.read('reading a snapshot', () => {
      const row = this.#stat.get(checkName(keyOrName, 'key or name'));
      if (row === undefined) throw notFound(keyOrName);
      return toRecord(row);
    });
  }

  /** The snapshot of that id, or `undefined`. */
  statById(id: number): SnapshotRecord | undefined {
    return this.read('reading a snapshot', () => {
      const row = this.#statById.get(id);
      return row && toRecord(row);
    });
  }

  /** Whether there is a snapshot of that key or name, of any kind. */
  exists(keyOrName: string): boolean {
    return this.lookUp(checkName(keyOrName, 'key or name')) !== undefined;
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
   * What decides about a snapshot, in one look-up.
   *
   * @throws {SnapshotError} NOT_FOUND
   */
  find(keyOrName: string): Found {
    const found = this.lookUp(checkName(keyOrName, 'key or name'));
    if (found === undefined) throw notFound(keyOrName);
    return found;
  }

  /**
   * The direct children, in the order of creation.
   *
   * @throws {SnapshotError} NOT_FOUND
   */
  children(name: string): SnapshotRecord[] {
    const { id } = this.find(name);
    return this.read('reading children', () => this.#children.all(id).map(toRecord));
  }

  /**
   * The ancestors, nearest first.
   *
   * @throws {SnapshotError} NOT_FOUND
   */
  chain(keyOrName: string): SnapshotRecord[] {
    const { parentId } = this.find(keyOrName);
    return this.read('reading ancestors', () => this.#chain.all(parentId).map(toRecord));
  }

  /** The ids of a snapshot and of its ancestors, nearest first, with `between` put between each two; empty without it. */
  lowers(id: number, between: string): string {
    return this.read('reading ancestors', () => this.#lowers.get(id, between) ?? '');
  }

  /** Everything that descends from a snapshot, in the order of creation. */
  descendants(id: number): SnapshotRecord[] {
    return this.read('reading descendants', () => this.#descendants.all(id).map(toRecord));
  }

  /**
   * The snapshots that any of the filters takes, or all, of the kinds asked for, in the order of creation and in
   * pages of a bounded size. It visits what was there when it began and is there still when it is reached;
   * between two pages the store may be written to.
   *
   * @throws {SnapshotError} INVALID_ARGUMENT if a filter does not parse, before the first page
   */
  pages(filters: readonly string[], span: Span = 'all'): IterableIterator<SnapshotRecord[]> {
    const pages = this.read('listing', () => this.#listing.pages(filters, span));
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

  /** What is to be deleted from disk, in the order of ids, from after `afterId` on. */
  removals(afterId = 0, limit = 1000): Removal[] {
    return this.read('reading the removal journal', () => this.#removals.all(afterId, limit));
  }

  /** Whether an id's part is to be deleted from disk, now. */
  isDeleting({ id, part }: Removal): boolean {
    return this.read('reading the removal journal', () => this.#isDeleting.get(id, part) !== undefined);
  }

  /** How much there is to be deleted from disk. */
  pendingRemovals(): number {
    return this.read('reading the removal journal', () => this.#pendingRemovals.get() ?? 0);
  }

  /** The ids that are reserved for copies, under way or abandoned. */
  reservations(): number[] {
    return this.read('reading the removal journal', () => this.#reservations.all());
  }

  /** The highest id that was ever handed out. */
  highWater(): number {
    return this.read('reading the high-water mark', () => this.#highWater.get() ?? 0);
  }

  /** The lines of the tree of snapshots, as the view `snapshot_tree` draws it. */
  tree(): string[] {
    return this.read('drawing the tree', () => this.#tree.all());
  }

  /** Lets go of the database. May be called more than once. */
  close(): void {
    this.db.close();
  }

  /** What decides about a snapshot, if there is one of that key or name. */
  lookUp(name: string): Found | undefined {
    const row = this.read('reading a snapshot', () => this.#find.get(name));
    if (row === undefined) return undefined;
    const [id, kind, parentId, inodes, size, volatileBoot] = row;
    const usage = inodes === null || size === null ? null : { inodes, size };
    return { id, name, kind: toKind(kind, name), parentId, usage, volatileBoot };
  }

  protected firstChild(id: number): string | undefined {
    return this.#firstChild.get(id);
  }

  /** Runs a read, so that no error of SQLite's gets out as it is. */
  protected read<T>(doing: string, body: () => T): T {
    if (!this.db.open) throw new SnapshotError('FAILED_PRECONDITION', 'the store is closed');
    try {
      return body();
    } catch (error) {
      throw toSnapshotError(error, doing);
    }
  }
}

/** The error for a key or name that is not there. */
function notFound(keyOrName: string): SnapshotError {
  return new SnapshotError('NOT_FOUND', `there is no snapshot ${quote(keyOrName)}`);
}

/** Opens a database for synchronous use, in which SQLite itself waits for locks. */
export async function openForService(
  file: string,
  readonly: boolean,
  { busyTimeout = DEFAULT_BUSY_TIMEOUT_MS }: MetadataOptions,
): Promise<Database> {
  const db = await openDatabase(file, { readonly, busyTimeout });
  db.pragma(`busy_timeout = ${Math.trunc(busyTimeout)}`);
  return db;
}
