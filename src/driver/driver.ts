import { setImmediate as nextTurn } from 'node:timers/promises';
import { SnapshotError, toSnapshotError } from '../errors.ts';
import { errnoOf } from '../linux/tree.ts';
import { retryWhileBusy } from '../metadata/busy.ts';
import { GroupCommit, type WriteOptions } from '../metadata/group-commit.ts';
import type { Span } from '../metadata/listing.ts';
import { openDatabase } from '../metadata/open.ts';
import type { Removal } from '../metadata/reader.ts';
import { Reserve } from '../metadata/reserve.ts';
import { MetadataStore, isThenable } from '../metadata/store.ts';
import { Transactor } from '../metadata/transactor.ts';
import { checkName, kindOf, quote } from '../names.ts';
import type {
  CleanupResult,
  CommitOptions,
  Info,
  Mount,
  Owner,
  PrepareOptions,
  RemoveResult,
  Snapshotter,
  UpdateOptions,
  Usage,
} from '../snapshot.ts';
import { Directories } from './directories.ts';
import type { Layout } from './layout.ts';
import { MountTable } from './mounts.ts';
import { Operations, type Seal, checkUse, toCommitOptions, toMakeArguments } from './operations.ts';
import { type DriverOptions, type Settings, toSettings } from './options.ts';
import { Reaper } from './reaper.ts';
import { openRoot } from './root.ts';
import { measure, measureUsage } from './seal.ts';
import { Transaction } from './transaction.ts';

/**
 * The snapshotter on overlayfs: rows in SQLite, layers on disk. Several drivers, in one process or in many, may have
 * the same root open.
 */
export class OverlayDriver implements Snapshotter {
  readonly #settings: Settings;
  readonly #layout: Layout;
  readonly #store: MetadataStore;
  readonly #commits: GroupCommit;
  readonly #operations: Operations;
  readonly #reaper: Reaper;
  readonly #seals = new WeakSet<object>();
  #closing: Promise<void> | undefined;

  private constructor(
    settings: Settings,
    layout: Layout,
    parts: { store: MetadataStore; commits: GroupCommit; operations: Operations },
  ) {
    this.#settings = settings;
    this.#layout = layout;
    this.#store = parts.store;
    this.#commits = parts.commits;
    this.#operations = parts.operations;
    this.#reaper = new Reaper(layout, {
      isDeleting: (removal) => this.#store.isDeleting(removal),
      removals: (afterId) => this.#store.removals(afterId),
      forget: (removals) => this.#commits.write(() => this.#store.forget(removals), { frees: true }),
    });
  }

  /**
   * Opens the store under a root, and makes both if they are not there.
   *
   * @throws {TypeError} if the root or an option is of a wrong type
   * @throws {SnapshotError} INVALID_ARGUMENT if the root or an option has a value that it cannot have
   * @throws {SnapshotError} FAILED_PRECONDITION if the root is not a directory of its own, is read-only or on a network
   *   filesystem, or the database belongs to another application or a newer version
   * @throws {SnapshotError} PERMISSION_DENIED if the root is someone else's, or others may write to it
   * @throws {SnapshotError} RESOURCE_EXHAUSTED if there is no space for it
   * @throws {SnapshotError} DATA_LOSS if the database is none, or damaged
   */
  static async open(root: string, options?: DriverOptions): Promise<OverlayDriver> {
    const settings = toSettings(options);
    const { layout, filesystem } = openRoot(root);
    const ordered = filesystem.ordered ? 'last' : 'each';
    const directories = new Directories(layout, settings.durability === 'full' ? ordered : 'none');
    const table = new MountTable(layout, settings);
    const { busyTimeout, upperdirLabel } = settings;
    const db = await openDatabase(layout.database, { readonly: false, busyTimeout });
    const transactor = new Transactor(db, directories);
    const store = new MetadataStore(db, transactor);
    const commits = new GroupCommit(db, transactor, { busyTimeout, reserve: new Reserve(layout.reserve) });
    const operations = new Operations({ store, directories, table, layout, upperdirLabel });
    return new OverlayDriver(settings, layout, { store, commits, operations });
  }

  async prepare(key: string, parent?: string | null, options?: PrepareOptions): Promise<Mount[]> {
    const checked = toMakeArguments(key, parent, options);
    return this.#write(`preparing ${quote(key)}`, () => this.#operations.make('active', checked));
  }

  async view(key: string, parent?: string | null, options?: PrepareOptions): Promise<Mount[]> {
    const checked = toMakeArguments(key, parent, options);
    return this.#write(`viewing ${quote(key)}`, () => this.#operations.make('view', checked));
  }

  async mounts(key: string): Promise<Mount[]> {
    return this.#read('reading mounts', () => this.#operations.mounts(key));
  }

  async commit(name: string, key: string, options?: CommitOptions): Promise<Info> {
    checkName(name, 'name');
    const checked = toCommitOptions(options, ['labels', 'parent', 'inUse']);
    // Found out before the walk, which can take long; the transaction finds it out again.
    if (await this.exists(name)) throw new SnapshotError('ALREADY_EXISTS', `${quote(name)} is taken`);
    const seal = await this.seal(key);
    checkUse(seal, checked.inUse);
    const info = await this.#write(`committing ${quote(key)}`, () =>
      this.#operations.commit(name, key, { ...checked, seal }),
    );
    if (!this.#settings.asyncRemove) void this.#reaper.reap({ id: info.id, part: 'work' });
    return info;
  }

  /**
   * Measures and digests the layer of an active snapshot, for a commit within a transaction. What is written to the
   * layer afterwards is committed, but not in the seal.
   *
   * @throws {SnapshotError} NOT_FOUND if the key is missing
   * @throws {SnapshotError} FAILED_PRECONDITION if it is not active
   * @throws {SnapshotError} DATA_LOSS if its layer is not there
   */
  async seal(key: string): Promise<Seal> {
    checkName(key, 'key');
    const { id, kind } = await this.#read('sealing', () => this.#store.find(key));
    if (kind !== 'active') {
      throw new SnapshotError('FAILED_PRECONDITION', `${quote(key)} is not active but ${kind}`);
    }
    const measured = await this.#measure(key, id, measure);
    const seal = { key, id, inUse: this.#operations.inUse(id), ...measured };
    this.#seals.add(seal);
    return seal;
  }

  async remove(key: string): Promise<RemoveResult> {
    checkName(key, 'key');
    return this.#reap(
      await this.#write(`removing ${quote(key)}`, () => this.#operations.remove(key), { frees: true }),
    );
  }

  async delete(name: string): Promise<RemoveResult> {
    checkName(name, 'name');
    return this.#reap(
      await this.#write(`deleting ${quote(name)}`, () => this.#operations.delete(name), { frees: true }),
    );
  }

  async parent(keyOrName: string): Promise<string | null> {
    return this.#read('reading a parent', () => this.#operations.parent(keyOrName));
  }

  async exists(keyOrName: string): Promise<boolean> {
    return this.#read('looking for a snapshot', () => this.#operations.exists(keyOrName));
  }

  async stat(keyOrName: string): Promise<Info> {
    return this.#read('reading a snapshot', () => this.#operations.stat(keyOrName));
  }

  async update(keyOrName: string, options: UpdateOptions, fieldpaths?: readonly string[]): Promise<Info> {
    return this.#write(`updating`, () => this.#operations.update(keyOrName, options, fieldpaths));
  }

  async usage(keyOrName: string): Promise<Usage> {
    const { id, kind, usage } = await this.#read('reading usage', () => this.#store.find(keyOrName));
    if (kind === 'active') return this.#measure(keyOrName, id, measureUsage);
    return usage ?? { inodes: 0, size: 0 };
  }

  async walk(fn: (info: Info) => void | Promise<void>, ...filters: string[]): Promise<void> {
    await this.#visit(fn, filters, 'committed');
  }

  async active(fn: (info: Info) => void | Promise<void>): Promise<void> {
    await this.#visit(fn, [], 'open');
  }

  snapshots(...filters: string[]): AsyncIterableIterator<Info> {
    return this.#list(filters, 'all');
  }

  async children(name: string): Promise<Info[]> {
    return this.#read('reading children', () =>
      this.#store.children(name).map((child) => this.#operations.info(child)),
    );
  }

  async chain(keyOrName: string): Promise<Info[]> {
    return this.#read('reading ancestors', () =>
      this.#store.chain(keyOrName).map((ancestor) => this.#operations.info(ancestor)),
    );
  }

  /**
   * Which snapshot a path under `snapshots/` belongs to, given absolute or from the root, and what descends from it.
   *
   * @throws {SnapshotError} NOT_FOUND if it is not of this store, or no snapshot has it
   */
  async owner(path: string): Promise<Owner> {
    if (typeof path !== 'string') throw new TypeError(`the path must be a string, not ${kindOf(path)}`);
    return this.#read('looking for an owner', () => {
      const id = this.#layout.idOf(path);
      const record = id === undefined ? undefined : this.#store.statById(id);
      if (record === undefined) throw new SnapshotError('NOT_FOUND', `no snapshot owns ${quote(path)}`);
      const descendants = this.#store
        .descendants(record.id)
        .map((descendant) => this.#operations.info(descendant));
      return { snapshot: this.#operations.info(record), descendants };
    });
  }

  /**
   * Runs `fn` in one transaction: all that it does through `tx` is there afterwards, on disk too, or, if it throws,
   * nothing. It is called at most once and must not be asynchronous.
   *
   * @returns what `fn` returned, once that is durable
   * @throws what `fn` throws; {TypeError} if it is asynchronous
   */
  async transaction<T>(fn: (tx: Transaction) => T): Promise<T> {
    if (typeof fn !== 'function') throw new TypeError(`a transaction needs a function, not ${kindOf(fn)}`);
    let removals: readonly Removal[] = [];
    let result: T | undefined;
    const failure: { error?: unknown } = {};
    const run = (): T => {
      const tx = new Transaction(this.#operations, (seal) => this.#seals.has(seal));
      try {
        result = fn(tx);
        if (isThenable(result)) {
          Promise.resolve(result).catch(() => {});
          throw new TypeError('the function of a transaction must not be asynchronous');
        }
        return result;
      } catch (error) {
        failure.error = error;
        throw error;
      } finally {
        removals = tx.end();
      }
    };
    const done = await this.#write('a transaction', run, { once: true }).catch((error: unknown) => {
      // What the function itself threw goes to the caller as it is.
      throw 'error' in failure ? failure.error : error;
    });
    if (!this.#settings.asyncRemove) await Promise.all(removals.map((removal) => this.#reaper.reap(removal)));
    return done;
  }

  async cleanup(): Promise<CleanupResult> {
    this.#checkOpen();
    return this.#reaper.cleanup();
  }

  /** Finishes what is under way and lets go of the store. May be called more than once. */
  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  async #close(): Promise<void> {
    await this.#commits.idle();
    await this.#reaper.close();
    await this.#commits.idle();
    this.#store.close();
  }

  #checkOpen(): void {
    if (this.#closing !== undefined) throw new SnapshotError('FAILED_PRECONDITION', 'the driver is closed');
  }

  async #read<T>(doing: string, body: () => T): Promise<T> {
    this.#checkOpen();
    return retryWhileBusy(body, this.#settings.busyTimeout, doing);
  }

  async #write<T>(doing: string, body: () => T, options?: WriteOptions): Promise<T> {
    this.#checkOpen();
    try {
      return await this.#commits.write(body, options);
    } catch (error) {
      throw toSnapshotError(error, doing);
    }
  }

  async #reap(removal: Removal): Promise<RemoveResult> {
    if (this.#settings.asyncRemove) return {};
    const deferred = await this.#reaper.reap(removal);
    return deferred === undefined ? {} : { deferred };
  }

  async #measure<T>(key: string, id: number, by: (directory: string) => Promise<T>): Promise<T> {
    try {
      return await by(this.#layout.fs(id));
    } catch (error) {
      if (!['ENOENT', 'ENOTDIR', 'ELOOP'].includes(String(errnoOf(error)))) {
        throw toSnapshotError(error, `measuring ${quote(key)}`);
      }
      if (this.#store.statById(id) === undefined) {
        throw new SnapshotError('NOT_FOUND', `there is no snapshot ${quote(key)} any more`);
      }
      const what = `the layer ${quote(this.#layout.fs(id))} of ${quote(key)}`;
      throw new SnapshotError('DATA_LOSS', `${what} is missing or not a directory`, { cause: error });
    }
  }

  async #visit(
    fn: (info: Info) => void | Promise<void>,
    filters: readonly string[],
    span: Span,
  ): Promise<void> {
    if (typeof fn !== 'function') throw new TypeError(`a walk needs a function, not ${kindOf(fn)}`);
    for await (const info of this.#list(filters, span)) await fn(info);
  }

  async *#list(filters: readonly string[], span: Span): AsyncGenerator<Info, void, undefined> {
    const pages = await this.#read('listing', () => this.#store.pages(filters, span));
    for (;;) {
      const page = await this.#read('listing', () => pages.next());
      if (page.done === true) return;
      for (const record of page.value) yield this.#operations.info(record);
      await nextTurn();
    }
  }
}
