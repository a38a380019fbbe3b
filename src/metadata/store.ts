import { wrongType } from '../errors.ts';
import type { Database } from 'better-sqlite3';
import { checkLabels, checkName, checkParent, isThenable, toLabelKeys } from '../arguments.ts';
import { quote } from '../quote.ts';
import type { Labels, SnapshotRecord, UpdateOptions, Usage } from '../snapshot.ts';
import { closeDatabase } from './open.ts';
import { type MetadataOptions, MetadataReader, openForService } from './reader.ts';
import { type Commit, RowWriter } from './row-writer.ts';
import type { Removal } from './rows.ts';
import type { StoreLock } from './store-lock.ts';
import { Transactor } from './transactor.ts';

/** Options of `MetadataStore.prepare`. */
export interface PrepareRecord {
  labels?: Labels;
  /** For a volatile snapshot, the id of the present boot. */
  volatileBoot?: string;
}

/** Options of `MetadataStore.commit` and `checkpoint`. */
export interface CommitRecord {
  labels?: Labels;
  /** The parent to give to a snapshot that was prepared without one (default: the parent that it has). */
  parent?: string;
  /** What its layer holds (default: nothing). */
  usage?: Usage;
  /** The digest over its layer. */
  seal?: string;
  /** Whether something still had it mounted (default: unknown). */
  inUse?: boolean;
}

/**
 * The metadata of a store, without its directories: for services that keep something else under each id, and
 * need names, parents, labels and states to change together or not at all.
 *
 * Every method is synchronous and, unless it is called within `transaction`, durable when it returns.
 */
export class MetadataStore extends MetadataReader {
  readonly #transactor: Transactor;
  readonly #writer: RowWriter;

  /** Takes a database that `openDatabase` has opened for writing. */
  constructor(db: Database, transactor: Transactor = new Transactor(db), lock?: StoreLock) {
    super(db, lock);
    this.#transactor = transactor;
    this.#writer = new RowWriter(db, this.rows);
  }

  /**
   * Opens a database, and creates it if it is not there; its directory has to be.
   *
   * @throws {SnapshotError} FAILED_PRECONDITION if it belongs to another application or a newer version
   * @throws {SnapshotError} DATA_LOSS if it is not a database, or a damaged one
   */
  static async open(file: string, options: MetadataOptions = {}): Promise<MetadataStore> {
    const { db, lock } = await openForService(file, false, options);
    return new MetadataStore(db, new Transactor(db), lock);
  }

  /** How many writes were rolled back so far. What was read from one of them no longer holds. */
  get rollbacks(): number {
    return this.#transactor.rollbacks;
  }

  /**
   * Makes an active snapshot on a committed parent, or on nothing.
   *
   * @throws {SnapshotError} as `Snapshotter.prepare`
   */
  prepare(key: string, parent?: string | null, options: PrepareRecord = {}): SnapshotRecord {
    return this.#create('active', key, parent, options);
  }

  /**
   * Makes a view on a committed parent, or on nothing.
   *
   * @throws {SnapshotError} as `Snapshotter.view`
   */
  view(key: string, parent?: string | null, options: Pick<PrepareRecord, 'labels'> = {}): SnapshotRecord {
    return this.#create('view', key, parent, { labels: options.labels ?? {} });
  }

  /**
   * Seals the active snapshot `key` as `name`.
   *
   * @throws {SnapshotError} as `Snapshotter.commit`
   */
  commit(name: string, key: string, options: CommitRecord = {}): SnapshotRecord {
    const commit = toCommit(name, options);
    checkName(key, 'key');
    return this.#write(`committing ${quote(key)}`, () => {
      this.rows.checkFree(name);
      return this.#writer.commit(this.rows.findActive(key), commit);
    });
  }

  /**
   * Reserves an id for a copy that is about to be made. It is in the removal journal until it becomes a snapshot by
   * `checkpoint` or is given up by `abandon`.
   */
  reserve(): number {
    return this.#write('reserving an id', () => this.#writer.reserveId());
  }

  /**
   * Makes a reserved id the committed snapshot `name`, with the parent that the active snapshot `key` has; `key`
   * stays as it is.
   *
   * @throws {SnapshotError} as `commit`
   * @throws {SnapshotError} FAILED_PRECONDITION if the id is not reserved any more
   */
  checkpoint(name: string, key: string, reserved: number, options: CommitRecord = {}): SnapshotRecord {
    const commit = toCommit(name, options);
    checkName(key, 'key');
    return this.#write(`committing ${quote(key)}`, () => {
      this.rows.checkFree(name);
      return this.#writer.commitCopy(this.rows.findActive(key), reserved, commit);
    });
  }

  /** Gives up a reserved id: its directory is to be deleted. Whether it was still reserved. */
  abandon(id: number): boolean {
    return this.#write('giving up a reserved id', () => this.#writer.abandonId(id));
  }

  /**
   * Records in which boot a volatile snapshot is mounted.
   *
   * @throws {SnapshotError} NOT_FOUND if the key is missing
   * @throws {SnapshotError} FAILED_PRECONDITION if it is not volatile
   */
  setVolatileBoot(key: string, boot: string): void {
    checkName(key, 'key or name');
    this.#write(`mounting ${quote(key)}`, () => this.#writer.setVolatileBoot(key, boot));
  }

  /**
   * Abandons an active snapshot or a view. Its id goes into the removal journal.
   *
   * @throws {SnapshotError} as `Snapshotter.remove`
   */
  remove(key: string): Removal {
    checkName(key, 'key');
    return this.#write(`removing ${quote(key)}`, () => this.#writer.remove(key));
  }

  /**
   * Deletes a committed snapshot. Its id goes into the removal journal.
   *
   * @throws {SnapshotError} as `Snapshotter.delete`
   */
  delete(name: string): Removal {
    checkName(name, 'name');
    return this.#write(`deleting ${quote(name)}`, () => this.#writer.delete(name));
  }

  /**
   * Changes labels.
   *
   * @throws {SnapshotError} as `Snapshotter.update`
   */
  update(keyOrName: string, { labels }: UpdateOptions, fieldpaths: readonly string[] = []): SnapshotRecord {
    checkName(keyOrName, 'key or name');
    if (labels === undefined) throw wrongType('labels must be given');
    const checked = checkLabels(labels);
    const keys = toLabelKeys(fieldpaths);
    return this.#write(`updating ${quote(keyOrName)}`, () =>
      this.#writer.setLabels(keyOrName, checked, keys),
    );
  }

  /**
   * Runs `fn` in one transaction: all that it writes is there afterwards, durably, or, if it throws, nothing.
   * Within another transaction it is a part of that, which fails alone.
   *
   * @returns what `fn` returns
   * @throws what `fn` throws; {TypeError} if `fn` is asynchronous
   */
  transaction<T>(fn: (store: this) => T): T {
    return this.#write('a transaction', () => {
      const result = fn(this);
      if (isThenable(result)) throw wrongType('the function of a transaction must not be asynchronous');
      return result;
    });
  }

  /** Takes directories that have been deleted out of the removal journal. */
  forget(removals: readonly Removal[]): void {
    this.#write('clearing the removal journal', () => this.#writer.forgetRemovals(removals));
  }

  /** Closes the database, leaving its statistics up to date. May be called more than once. */
  override close(): void {
    closeDatabase(this.db);
    super.close();
  }

  #create(
    kind: 'active' | 'view',
    key: string,
    givenParent: string | null | undefined,
    options: PrepareRecord,
  ): SnapshotRecord {
    checkName(key, 'key');
    const parent = checkParent(givenParent);
    const labels = checkLabels(options.labels);
    const volatileBoot = options.volatileBoot ?? null;
    const { id, us } = this.#write(`preparing ${quote(key)}`, () =>
      this.#writer.create({ kind, key, parent, labels, volatileBoot }),
    );
    return {
      id,
      name: key,
      kind,
      parent,
      labels,
      created: new Date(us / 1000),
      updated: new Date(us / 1000),
      createdUs: us,
      updatedUs: us,
      seal: null,
      inUse: null,
      volatile: volatileBoot !== null,
    };
  }

  /** Runs a write in a transaction of its own, or as a part of the one that is open. */
  #write<T>(doing: string, body: () => T): T {
    return this.read(doing, () =>
      this.#transactor.open ? this.#transactor.nested(body) : this.#transactor.run(body),
    );
  }
}

function toCommit(name: string, { labels, parent, usage, seal, inUse }: CommitRecord): Commit {
  return {
    name: checkName(name, 'name'),
    labels: checkLabels(labels),
    parent: checkParent(parent),
    usage: usage ?? { inodes: 0, size: 0 },
    seal: seal ?? null,
    inUse: inUse ?? null,
  };
}
