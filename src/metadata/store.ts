import type { Database, Statement } from 'better-sqlite3';
import { SnapshotError } from '../errors.ts';
import { checkLabels, checkName, checkParent, isThenable, labelKeys } from '../arguments.ts';
import { quote } from '../quote.ts';
import type { Labels, SnapshotRecord, UpdateOptions, Usage } from '../snapshot.ts';
import { nowUs } from './clock.ts';
import { type Found, MetadataReader, type MetadataOptions, type Removal, openForService } from './reader.ts';
import { Transactor } from './transactor.ts';

/** What is recorded when a snapshot is prepared. */
export interface PrepareRecord {
  labels?: Labels;
  /** For a volatile snapshot, the boot in which it is made. */
  volatileBoot?: string;
}

/** What is recorded when a snapshot is committed. */
export interface CommitRecord {
  labels?: Labels;
  /** The name to descend from, for a snapshot that was made without a parent; otherwise its own. */
  parent?: string;
  /** What its layer holds; nothing unless given. */
  usage?: Usage;
  /** The digest over its layer. */
  seal?: string;
  /** Whether something still had it mounted; unknown unless given. */
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
  readonly #insert: Statement<Insertion, number>;
  readonly #flip: Statement<[Flip]>;
  readonly #delete: Statement<[number]>;
  readonly #touch: Statement<[number, number]>;
  readonly #insertLabels: Statement<[number, string]>;
  readonly #setLabel: Statement<[number, string, string]>;
  readonly #deleteLabel: Statement<[number, string]>;
  readonly #deleteLabels: Statement<[number]>;
  readonly #setBoot: Statement<[string, number]>;
  readonly #reserve: Statement<[], number>;
  readonly #isReserved: Statement<[number], number>;
  readonly #insertCopy: Statement<[Flip]>;
  readonly #abandon: Statement<[number]>;
  readonly #forget: Statement<[number, string]>;

  /** Takes a database that `openDatabase` has opened for writing. */
  constructor(db: Database, transactor: Transactor = new Transactor(db)) {
    super(db);
    this.#transactor = transactor;
    // The id is not left to AUTOINCREMENT, so that nobody's edit of sqlite_sequence can stand in the way.
    this.#insert = db
      .prepare<Insertion, number>(`
      insert into snapshot (id, name, kind, parent_id, created_us, updated_us, volatile_boot)
      values ((select id + 1 from high_water), :name, :kind, :parentId, :us, :us, :volatileBoot)
      returning id`)
      .pluck();
    this.#flip = db.prepare(`
      update snapshot
         set name = :name,
             kind = 'committed',
             parent_id = :parentId,
             created_us = :us,
             updated_us = :us,
             inodes = :inodes,
             size = :size,
             seal = :seal,
             in_use = :inUse,
             volatile_boot = null
       where id = :id`);
    this.#delete = db.prepare('delete from snapshot where id = ?');
    this.#touch = db.prepare('update snapshot set updated_us = ? where id = ?');
    this.#insertLabels = db.prepare(`
      insert into label (snapshot_id, key, value)
      select ?, key, value from json_each(?)`);
    this.#setLabel = db.prepare(`
      insert into label (snapshot_id, key, value)
      values (?, ?, ?)
      on conflict (snapshot_id, key) do update set value = excluded.value`);
    this.#deleteLabel = db.prepare('delete from label where snapshot_id = ? and key = ?');
    this.#deleteLabels = db.prepare('delete from label where snapshot_id = ?');
    this.#setBoot = db.prepare('update snapshot set volatile_boot = ? where id = ?');
    this.#reserve = db
      .prepare<[], number>(`
      insert into removal (id, part, state)
      values ((select id + 1 from high_water), 'all', 'reserved')
      returning id`)
      .pluck();
    this.#isReserved = db
      .prepare<[number], number>(`select 1 from removal where id = ? and part = 'all' and state = 'reserved'`)
      .pluck();
    this.#insertCopy = db.prepare(`
      insert into snapshot (id, name, kind, parent_id, created_us, updated_us, inodes, size, seal, in_use)
      values (:id, :name, 'committed', :parentId, :us, :us, :inodes, :size, :seal, :inUse)`);
    this.#abandon = db.prepare(`
      update removal
         set state = 'deleting'
       where id = ?
         and part = 'all'
         and state = 'reserved'`);
    this.#forget = db.prepare(`delete from removal where id = ? and part = ? and state = 'deleting'`);
  }

  /**
   * Opens a database, and makes it if it is not there; its directory has to be.
   *
   * @throws {SnapshotError} FAILED_PRECONDITION if it belongs to another application or a newer version
   * @throws {SnapshotError} DATA_LOSS if it is no database, or a damaged one
   */
  static async open(file: string, options: MetadataOptions = {}): Promise<MetadataStore> {
    return new MetadataStore(await openForService(file, false, options));
  }

  /** How often something that had been written was taken back: what was read of it until then is of no use. */
  get rollbacks(): number {
    return this.#transactor.rollbacks;
  }

  /**
   * Makes an active snapshot on a committed parent, or on nothing.
   *
   * @throws {SnapshotError} as `Snapshotter.prepare`
   */
  prepare(key: string, parent?: string | null, options: PrepareRecord = {}): SnapshotRecord {
    return this.#make('active', key, parent, options);
  }

  /**
   * Makes a view on a committed parent, or on nothing.
   *
   * @throws {SnapshotError} as `Snapshotter.view`
   */
  view(key: string, parent?: string | null, options: Pick<PrepareRecord, 'labels'> = {}): SnapshotRecord {
    return this.#make('view', key, parent, { labels: options.labels ?? {} });
  }

  /**
   * Seals the active snapshot `key` as `name`.
   *
   * @throws {SnapshotError} as `Snapshotter.commit`
   */
  commit(name: string, key: string, options: CommitRecord = {}): SnapshotRecord {
    return this.#seal(name, key, options, (flip) => {
      this.#flip.run(flip);
      return flip.id;
    });
  }

  /**
   * Reserves an id for a copy that is about to be made. It is in the removal journal until it becomes a snapshot by
   * `checkpoint` or is given up by `abandon`.
   */
  reserve(): number {
    return this.#write('reserving an id', () => {
      const id = this.#reserve.get();
      if (id === undefined) throw new SnapshotError('INTERNAL', 'reserving an id gave none');
      return id;
    });
  }

  /**
   * Makes a reserved id the committed snapshot `name`, with the parent that the active snapshot `key` has; `key`
   * stays as it is.
   *
   * @throws {SnapshotError} as `commit`
   * @throws {SnapshotError} FAILED_PRECONDITION if the id is not reserved any more
   */
  checkpoint(name: string, key: string, reserved: number, options: CommitRecord = {}): SnapshotRecord {
    return this.#seal(name, key, options, (flip) => {
      if (this.#isReserved.get(reserved) === undefined) {
        throw new SnapshotError('FAILED_PRECONDITION', `id ${reserved} is not reserved any more`);
      }
      this.#insertCopy.run({ ...flip, id: reserved });
      return reserved;
    });
  }

  /** Gives up a reserved id: what was made for it is to be deleted. Whether it was still reserved. */
  abandon(id: number): boolean {
    return this.#write('giving up a reserved id', () => this.#abandon.run(id).changes > 0);
  }

  /**
   * Records in which boot a volatile snapshot is mounted.
   *
   * @throws {SnapshotError} NOT_FOUND if the key is missing
   * @throws {SnapshotError} FAILED_PRECONDITION if it is not volatile
   */
  setVolatileBoot(key: string, boot: string): void {
    this.#write(`mounting ${quote(key)}`, () => this.#setBoot.run(boot, this.find(key).id));
  }

  /**
   * Abandons an active snapshot or a view. Its id goes into the removal journal.
   *
   * @throws {SnapshotError} as `Snapshotter.remove`
   */
  remove(key: string): Removal {
    checkName(key, 'key');
    return this.#write(`removing ${quote(key)}`, () => {
      const open = this.find(key);
      if (open.kind === 'committed') {
        throw new SnapshotError('FAILED_PRECONDITION', `${quote(key)} is committed`, { hint: 'use delete' });
      }
      return this.#erase(open);
    });
  }

  /**
   * Deletes a committed snapshot. Its id goes into the removal journal.
   *
   * @throws {SnapshotError} as `Snapshotter.delete`
   */
  delete(name: string): Removal {
    checkName(name, 'name');
    return this.#write(`deleting ${quote(name)}`, () => {
      const committed = this.find(name);
      if (committed.kind !== 'committed') {
        throw new SnapshotError(
          'FAILED_PRECONDITION',
          `${quote(name)} is not committed but ${a(committed)}`,
          {
            hint: 'use remove',
          },
        );
      }
      return this.#erase(committed);
    });
  }

  /**
   * Changes labels.
   *
   * @throws {SnapshotError} as `Snapshotter.update`
   */
  update(keyOrName: string, { labels }: UpdateOptions, fieldpaths: readonly string[] = []): SnapshotRecord {
    checkName(keyOrName, 'key or name');
    if (labels === undefined) throw new TypeError('labels must be given');
    const given = checkLabels(labels);
    const keys = labelKeys(fieldpaths);
    return this.#write(`updating ${quote(keyOrName)}`, () => {
      const { id } = this.find(keyOrName);
      if (keys === 'all') {
        this.#replaceLabels(id, given);
      } else {
        for (const key of keys) {
          const value = Object.hasOwn(given, key) ? given[key] : undefined;
          if (value === undefined) this.#deleteLabel.run(id, key);
          else this.#setLabel.run(id, key, value);
        }
      }
      this.#touch.run(nowUs(), id);
      return this.stat(keyOrName);
    });
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
      if (isThenable(result)) throw new TypeError('the function of a transaction must not be asynchronous');
      return result;
    });
  }

  /** Takes out of the removal journal what has been deleted. */
  forget(removals: readonly Removal[]): void {
    this.#write('clearing the removal journal', () => {
      for (const { id, part } of removals) this.#forget.run(id, part);
    });
  }

  /** Lets go of the database, leaving its statistics up to date. May be called more than once. */
  override close(): void {
    if (this.db.open) {
      try {
        this.db.pragma('optimize');
      } catch {
        // Statistics are a help to queries, no part of the data: another writer or a full disk may have its way.
      }
    }
    super.close();
  }

  #make(
    kind: 'active' | 'view',
    key: string,
    givenParent: string | null | undefined,
    options: PrepareRecord,
  ): SnapshotRecord {
    checkName(key, 'key');
    const parent = checkParent(givenParent);
    const labels = checkLabels(options.labels);
    return this.#write(`preparing ${quote(key)}`, () => {
      const parentId = parent === null ? null : this.#findParent(parent, 'INVALID_ARGUMENT').id;
      if (this.lookUp(key) !== undefined) throw taken(key);
      const us = nowUs();
      const volatileBoot = options.volatileBoot ?? null;
      const id = this.#insert.get({ name: key, kind, parentId, us, volatileBoot });
      if (id === undefined) throw new SnapshotError('INTERNAL', `inserting ${quote(key)} gave no id`);
      this.#addLabels(id, labels);
      const now = new Date(us / 1000);
      return {
        id,
        name: key,
        kind,
        parent,
        labels,
        created: now,
        updated: now,
        createdUs: us,
        updatedUs: us,
        seal: null,
        inUse: null,
        volatile: volatileBoot !== null,
      };
    });
  }

  #seal(name: string, key: string, options: CommitRecord, change: (flip: Flip) => number): SnapshotRecord {
    checkName(name, 'name');
    checkName(key, 'key');
    const labels = checkLabels(options.labels);
    const parent = checkParent(options.parent);
    const { inodes, size } = options.usage ?? { inodes: 0, size: 0 };
    return this.#write(`committing ${quote(key)}`, () => {
      if (this.lookUp(name) !== undefined) throw taken(name);
      const active = this.find(key);
      if (active.kind !== 'active')
        throw new SnapshotError('FAILED_PRECONDITION', `${quote(key)} is not active but ${a(active)}`);
      const id = change({
        id: active.id,
        name,
        parentId: parent === null ? active.parentId : this.#rebase(active, parent),
        us: nowUs(),
        inodes,
        size,
        seal: options.seal ?? null,
        inUse: options.inUse === undefined ? null : Number(options.inUse),
      });
      this.#replaceLabels(id, labels);
      return this.stat(name);
    });
  }

  #rebase(active: Found, parent: string): number {
    if (active.parentId !== null && this.parent(active.name) !== parent) {
      throw new SnapshotError(
        'INVALID_ARGUMENT',
        `${quote(active.name)} has another parent than ${quote(parent)}`,
      );
    }
    return this.#findParent(parent, 'FAILED_PRECONDITION').id;
  }

  #findParent(parent: string, code: 'INVALID_ARGUMENT' | 'FAILED_PRECONDITION'): Found {
    const found = this.lookUp(parent);
    if (found === undefined) throw new SnapshotError('NOT_FOUND', `there is no parent ${quote(parent)}`);
    if (found.kind === 'committed') return found;
    throw new SnapshotError(code, `the parent ${quote(parent)} is not committed but ${a(found)}`);
  }

  #erase(snapshot: Found): Removal {
    const child = this.firstChild(snapshot.id);
    if (child !== undefined) {
      throw new SnapshotError(
        'FAILED_PRECONDITION',
        `${quote(snapshot.name)} has children, ${quote(child)} for one: remove them first`,
      );
    }
    this.#delete.run(snapshot.id);
    return { id: snapshot.id, part: 'all' };
  }

  #replaceLabels(id: number, labels: Labels): void {
    this.#deleteLabels.run(id);
    this.#addLabels(id, labels);
  }

  #addLabels(id: number, labels: Labels): void {
    if (Object.keys(labels).length > 0) this.#insertLabels.run(id, JSON.stringify(labels));
  }

  /** Runs a write in a transaction of its own, or as a part of the one that is open. */
  #write<T>(doing: string, body: () => T): T {
    return this.read(doing, () =>
      this.#transactor.open ? this.#transactor.nested(body) : this.#transactor.run(body),
    );
  }
}

interface Insertion {
  name: string;
  kind: string;
  parentId: number | null;
  us: number;
  volatileBoot: string | null;
}

interface Flip {
  id: number;
  name: string;
  parentId: number | null;
  us: number;
  inodes: number;
  size: number;
  seal: string | null;
  inUse: number | null;
}

function a({ kind }: Found): string {
  return kind === 'active' ? 'active' : kind === 'view' ? 'a view' : 'committed';
}

function taken(name: string): SnapshotError {
  return new SnapshotError('ALREADY_EXISTS', `${quote(name)} is taken`);
}
