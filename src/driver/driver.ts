import { setImmediate as nextTurn } from 'node:timers/promises';
import type { Database } from 'better-sqlite3';
import { checkStore } from '../check/check.ts';
import { SnapshotError, isBusy, toSnapshotError } from '../errors.ts';
import { needsUserxattr } from '../linux/probe.ts';
import { retryWhileBusy } from '../metadata/busy.ts';
import { backupDatabase } from '../metadata/backup/backup.ts';
import { WriteQueue, type WriteOptions } from '../metadata/write-queue.ts';
import type { Span } from '../metadata/listing.ts';
import { openDatabase } from '../metadata/open.ts';
import type { Removal } from '../metadata/reader.ts';
import { SpareSpace } from '../metadata/spare-space.ts';
import { MetadataStore } from '../metadata/store.ts';
import { Transactor } from '../metadata/transactor.ts';
import { checkName, checkOptions, checkWatched, isThenable, kindOf } from '../arguments.ts';
import { quote } from '../quote.ts';
import type {
  BackupOptions,
  Change,
  CheckpointOptions,
  CleanupOptions,
  CleanupResult,
  CommitOptions,
  DetachedMount,
  DiffOptions,
  Info,
  Mount,
  MountCallOptions,
  Owner,
  PrepareOptions,
  RemoveResult,
  Seal,
  Snapshotter,
  UpdateOptions,
  Usage,
  ViewOptions,
  Waiting,
  Watched,
} from '../snapshot.ts';
import { Committer } from './committer.ts';
import { checkDiffOptions, diffSnapshots } from './diff.ts';
import { Directories } from '../layers/directories.ts';
import { SnapshotsView } from '../layers/snapshots-view.ts';
import { LayerSync } from '../layers/sync.ts';
import { Layers } from '../layers/layers.ts';
import type { Layout } from '../layers/layout.ts';
import { Mounter } from './mounter.ts';
import { type Look, MountTable } from './mount-table.ts';
import { Operations, toCommitOptions, toMakeArguments } from './operations.ts';
import { type DriverOptions, type Settings, toSettings } from './options.ts';
import { Reaper } from '../layers/reaper.ts';
import { type Root, openRoot } from './root.ts';
import { RollingBackup } from '../metadata/backup/rolling.ts';
import { Transaction } from './transaction.ts';
import type { CheckOptions, Report } from '../report.ts';

/** What is opened before a driver can be made. */
interface Base {
  readonly db: Database;
  readonly transactor: Transactor;
  readonly directories: Directories;
  /** Whether overlays need the option of that name here. */
  readonly userxattr: boolean;
}

/**
 * The snapshotter on overlayfs: rows in SQLite, layers on disk. Several drivers, in one process or in many, may have
 * the same root open.
 */
export class OverlayDriver implements Snapshotter {
  readonly #settings: Settings;
  readonly #layout: Layout;
  readonly #snapshotsView: SnapshotsView;
  readonly #store: MetadataStore;
  readonly #commits: WriteQueue;
  readonly #operations: Operations;
  readonly #layers: Layers;
  readonly #layerSync: LayerSync | undefined;
  readonly #reaper: Reaper;
  readonly #mounter: Mounter;
  readonly #committer: Committer;
  readonly #backups: RollingBackup | undefined;
  readonly #seals = new WeakSet<object>();
  readonly #running = new Set<Promise<unknown>>();
  #closing: Promise<void> | undefined;

  private constructor(
    settings: Settings,
    { layout, filesystem }: Root,
    { db, transactor, directories, userxattr }: Base,
  ) {
    const { busyTimeout, asyncRemove, upperdirLabel } = settings;
    this.#settings = settings;
    this.#layout = layout;
    const store = new MetadataStore(db, transactor);
    this.#store = store;
    this.#commits = new WriteQueue(db, transactor, {
      busyTimeout,
      spareSpace: new SpareSpace(layout.spareSpace),
      onCommit: settings.onTransaction,
    });
    const { ordered } = filesystem;
    const highWater = (): number => store.highWater();
    this.#layerSync =
      settings.durability === 'full' ? new LayerSync({ layout, ordered, highWater }) : undefined;
    this.#snapshotsView = new SnapshotsView(layout);
    const layers = new Layers({
      layout,
      snapshotsView: this.#snapshotsView,
      sync: this.#layerSync,
      contents: settings.seal === 'content',
      isKnown: (id) => store.statById(id) !== undefined,
    });
    this.#layers = layers;
    const table = new MountTable(layout, settings, userxattr);
    this.#operations = new Operations({ store, directories, table, layers, layout, upperdirLabel });
    this.#reaper = new Reaper(layout, {
      isDeleting: (removal) => store.isDeleting(removal),
      removals: (afterId) => store.removals(afterId),
      pendingRemovals: () => store.pendingRemovals(),
      reservations: () => store.reservations(),
      abandon: (id) => this.#commits.write(() => store.abandon(id), { frees: true }),
      forget: (removals) => this.#commits.write(() => store.forget(removals), { frees: true }),
    });
    this.#mounter = new Mounter({
      layout,
      layers,
      find: (key) => retryWhileBusy(() => store.find(key), busyTimeout, 'mounting'),
      mounts: (key) => retryWhileBusy(() => this.#operations.mounts(key), busyTimeout, 'mounting'),
      setBoot: (key, boot) => this.#commit(`mounting ${quote(key)}`, () => store.setVolatileBoot(key, boot)),
    });
    this.#backups = settings.backups && new RollingBackup(layout.database, settings.backups);
    this.#committer = new Committer({
      layout,
      store,
      operations: this.#operations,
      layers,
      reaper: this.#reaper,
      asyncRemove: asyncRemove === true,
      // What has begun goes on while the driver is being closed.
      read: (doing, body) => retryWhileBusy(body, busyTimeout, doing),
      write: (doing, body, options) => this.#commit(doing, body, options),
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
    const opened = openRoot(root);
    const { layout, filesystem } = opened;
    const ordered = filesystem.ordered ? 'last' : 'each';
    const directories = new Directories(layout, settings.durability === 'full' ? ordered : 'none');
    const { busyTimeout, asyncRemove } = settings;
    const open = (): Promise<Database> => openDatabase(layout.database, { readonly: false, busyTimeout });
    const db = await open().catch((error: unknown) => {
      if (!(error instanceof SnapshotError && error.code === 'RESOURCE_EXHAUSTED')) throw error;
      SpareSpace.give(layout.spareSpace);
      return open();
    });
    try {
      const transactor = new Transactor(db, directories);
      const userxattr = await needsUserxattr();
      const driver = new OverlayDriver(settings, opened, { db, transactor, directories, userxattr });
      if (asyncRemove !== true) driver.#reaper.resume();
      return driver;
    } catch (error) {
      db.close();
      throw toSnapshotError(error, `opening the root ${quote(layout.root)}`);
    }
  }

  async prepare(key: string, parent?: string | null, options?: PrepareOptions & Waiting): Promise<Mount[]> {
    const { signal, given } = splitSignal(options);
    const checked = toMakeArguments('active', key, parent, given);
    return this.#write(`preparing ${quote(key)}`, () => this.#operations.make('active', checked), { signal });
  }

  async view(key: string, parent?: string | null, options?: ViewOptions & Waiting): Promise<Mount[]> {
    const { signal, given } = splitSignal(options);
    const checked = toMakeArguments('view', key, parent, given);
    return this.#write(`viewing ${quote(key)}`, () => this.#operations.make('view', checked), { signal });
  }

  async mounts(key: string): Promise<Mount[]> {
    return this.#read('reading mounts', () => this.#operations.mounts(key));
  }

  /**
   * Mounts an open snapshot on a directory, on which nothing is mounted yet.
   *
   * @throws {SnapshotError} NOT_FOUND if the key is missing
   * @throws {SnapshotError} FAILED_PRECONDITION if it is committed, the layer of an overlay is mounted to be written to
   *   already, the target is not there, no directory, a symbolic link or a mount already, or the kernel refuses
   * @throws {SnapshotError} DATA_LOSS if a layer is missing, or it is volatile and the machine was started anew
   * @throws {SnapshotError} PERMISSION_DENIED if this process may not mount
   */
  async mount(key: string, target: string, options?: MountCallOptions): Promise<void> {
    checkName(key, 'key');
    await this.#run(() => this.#mounter.mount(key, target, options));
  }

  /**
   * Mounts an open snapshot on a descriptor alone: nobody else finds it, and it is gone at the latest when the processes
   * that hold it have ended.
   *
   * @throws as `mount`
   * @throws {SnapshotError} UNIMPLEMENTED if this kernel cannot do that with overlays, before Linux 6.8
   */
  async openMount(key: string, options?: MountCallOptions): Promise<DetachedMount> {
    checkName(key, 'key');
    return this.#run(() => this.#mounter.openMount(key, options));
  }

  /**
   * Undoes the topmost mount on a directory, if it is one of this store. What uses it gets a moment to end; with
   * `lazy`, it may go on, and the mount is only taken out of the file tree.
   *
   * @throws {SnapshotError} FAILED_PRECONDITION if nothing of this store is mounted there, or it is in use
   */
  async unmount(target: string, options?: { lazy?: boolean }): Promise<void> {
    await this.#run(() => this.#mounter.unmount(target, options));
  }

  async commit(name: string, key: string, options?: CommitOptions): Promise<Info> {
    const known = ['labels', 'parent', 'inUse', 'signal', 'onProgress'] as const;
    const checked = toCommitOptions(options, known, ['allow', 'refuse', 'copy']);
    checkWatched(checked);
    return this.#run(() => this.#committer.commit(name, key, checked));
  }

  async checkpoint(name: string, key: string, options?: CheckpointOptions): Promise<Info> {
    const checked = toCommitOptions(options, ['labels', 'signal', 'onProgress'], []);
    checkWatched(checked);
    return this.#run(() => this.#committer.checkpoint(name, key, checked));
  }

  /**
   * Measures and digests the layer of an active snapshot and makes it durable, for a commit within a transaction.
   * What is written to the layer afterwards is committed, but neither in the seal nor sure to survive a power cut.
   *
   * @throws {SnapshotError} NOT_FOUND if the key is missing
   * @throws {SnapshotError} FAILED_PRECONDITION if it is not active
   * @throws {SnapshotError} DATA_LOSS if its layer is not there, or the disk failed under it
   */
  async seal(key: string, options?: Watched): Promise<Seal> {
    const checked = checkOptions(options, ['signal', 'onProgress']);
    checkWatched(checked);
    const seal = await this.#run(() => this.#committer.seal(key, checked));
    this.#seals.add(seal);
    return seal;
  }

  async remove(key: string, options?: Waiting): Promise<RemoveResult> {
    checkName(key, 'key');
    const how = { frees: true, signal: toSignal(options) };
    return this.#reap(await this.#write(`removing ${quote(key)}`, () => this.#operations.remove(key), how));
  }

  async delete(name: string, options?: Waiting): Promise<RemoveResult> {
    checkName(name, 'name');
    const how = { frees: true, signal: toSignal(options) };
    return this.#reap(await this.#write(`deleting ${quote(name)}`, () => this.#operations.delete(name), how));
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

  async update(
    keyOrName: string,
    options: UpdateOptions & Waiting,
    fieldpaths?: readonly string[],
  ): Promise<Info> {
    const { signal } = splitSignal(options);
    return this.#write(`updating`, () => this.#operations.update(keyOrName, options, fieldpaths), { signal });
  }

  async usage(keyOrName: string): Promise<Usage> {
    const found = await this.#read('reading usage', () => this.#store.find(keyOrName));
    const { id, kind, parentId, usage } = found;
    if (kind === 'active') return this.#layers.usage({ key: keyOrName, id, base: parentId === null });
    return usage ?? { inodes: 0, size: 0 };
  }

  async walk(fn: (info: Info) => void | Promise<void>, ...filters: string[]): Promise<void> {
    await this.#visit(fn, filters, 'committed');
  }

  async active(fn: (info: Info) => void | Promise<void>): Promise<void> {
    await this.#visit(fn, [], 'open');
  }

  snapshots(...filters: string[]): AsyncIterableIterator<Info> {
    const ending = new AbortController();
    const infos = this.#list(filters, 'all', ending.signal);
    return {
      next: () => infos.next(),
      // A generator alone would first look for the next one, however long that takes.
      return() {
        ending.abort();
        return infos.return(undefined);
      },
      [Symbol.asyncIterator]() {
        return this;
      },
    };
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
    await Promise.all(removals.map((removal) => this.#reap(removal)));
    return done;
  }

  /**
   * What a snapshot holds otherwise than its parent or another one, in the order of the paths. Both are mounted, read
   * only and where nobody sees it, for as long as that takes.
   *
   * @throws {TypeError} if an argument is of a wrong type
   * @throws {SnapshotError} NOT_FOUND if one of them is missing, or goes meanwhile
   * @throws {SnapshotError} DATA_LOSS if a layer is missing
   * @throws {SnapshotError} PERMISSION_DENIED if this process may not mount
   * @throws the reason of `signal`
   */
  diff(keyOrName: string, options?: DiffOptions): AsyncGenerator<Change, void, undefined> {
    checkName(keyOrName, 'key or name');
    const checked = checkDiffOptions(options);
    const look = (): Promise<readonly [Look | undefined, Look]> =>
      this.#read('reading what to compare', () => {
        const { against = this.#operations.parent(keyOrName) } = checked;
        const old = against === null ? undefined : this.#operations.look(against);
        return [old, this.#operations.look(keyOrName)];
      });
    return diffSnapshots({ layout: this.#layout, look }, keyOrName, checked);
  }

  async cleanup(options?: CleanupOptions): Promise<CleanupResult> {
    const checked = checkOptions(options, ['signal', 'onProgress']);
    checkWatched(checked);
    try {
      return await this.#run(() => this.#reaper.cleanup(checked));
    } catch (error) {
      throw isReason(error, checked.signal) ? error : toSnapshotError(error, 'cleaning up');
    }
  }

  /** How much of what was removed is still to be deleted from disk. */
  async pendingRemovals(): Promise<number> {
    return this.#read('reading the removal journal', () => this.#store.pendingRemovals());
  }

  /**
   * Checks the store while it is in use, and repairs it if asked to: what others are in the middle of is not taken for
   * damage.
   *
   * @throws as `checkStore`
   */
  async check(options?: CheckOptions): Promise<Report> {
    return this.#run(() => checkStore(this.#layout.root, options));
  }

  /**
   * Writes a consistent copy of the database to a new file, while it is in use. It is one file of mode 0600 that needs
   * no log beside it, and durable when the promise resolves. Layers are not in it.
   *
   * @throws {SnapshotError} ALREADY_EXISTS if there is something of that name
   * @throws {SnapshotError} FAILED_PRECONDITION if its directory is not there
   * @throws {SnapshotError} RESOURCE_EXHAUSTED if there is no space for it
   * @throws {SnapshotError} DATA_LOSS if the database is damaged
   * @throws the reason of `signal`; then no file is left
   */
  async backup(file: string, options?: BackupOptions): Promise<void> {
    await this.#run(() => backupDatabase(this.#layout.database, file, options));
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
    await this.#backups?.close();
    while (this.#running.size > 0) await Promise.allSettled(this.#running);
    await this.#commits.idle();
    await this.#reaper.close();
    await this.#commits.idle();
    this.#layerSync?.close();
    this.#snapshotsView.close();
    this.#store.close();
  }

  #checkOpen(): void {
    if (this.#closing !== undefined) throw new SnapshotError('FAILED_PRECONDITION', 'the driver is closed');
  }

  /** Runs what takes more than one step, which is let finish when the driver is closed meanwhile. */
  async #run<T>(steps: () => Promise<T>): Promise<T> {
    this.#checkOpen();
    const running = steps();
    this.#running.add(running);
    try {
      return await running;
    } finally {
      this.#running.delete(running);
    }
  }

  /** Reads at once. Only while others recover the database is there something to wait for. */
  async #read<T>(doing: string, body: () => T): Promise<T> {
    this.#checkOpen();
    try {
      return body();
    } catch (error) {
      if (!isBusy(error)) throw error;
    }
    return retryWhileBusy(body, this.#settings.busyTimeout, doing);
  }

  async #write<T>(doing: string, body: () => T, options?: WriteOptions): Promise<T> {
    this.#checkOpen();
    return this.#commit(doing, body, options);
  }

  async #commit<T>(doing: string, body: () => T, options?: WriteOptions): Promise<T> {
    try {
      return await this.#commits.write(body, options);
    } catch (error) {
      throw isReason(error, options?.signal) ? error : toSnapshotError(error, doing);
    }
  }

  async #reap(removal: Removal): Promise<RemoveResult> {
    const { asyncRemove } = this.#settings;
    if (asyncRemove === 'background') this.#reaper.reapLater(removal);
    if (asyncRemove !== false) return {};
    const deferred = await this.#reaper.reap(removal);
    return deferred === undefined ? {} : { deferred };
  }

  async #visit(
    fn: (info: Info) => void | Promise<void>,
    filters: readonly string[],
    span: Span,
  ): Promise<void> {
    if (typeof fn !== 'function') throw new TypeError(`a walk needs a function, not ${kindOf(fn)}`);
    for await (const info of this.#list(filters, span)) await fn(info);
  }

  async *#list(
    filters: readonly string[],
    span: Span,
    ending?: AbortSignal,
  ): AsyncGenerator<Info, undefined, undefined> {
    const pages = await this.#read('listing', () => this.#store.pages(filters, span));
    for (;;) {
      const page = await this.#read('listing', () => pages.next());
      if (page.done === true || ending?.aborted === true) return;
      for (const record of page.value) yield this.#operations.info(record);
      await nextTurn();
    }
  }
}

/** The signal among options, and the others, which are checked elsewhere. */
function splitSignal<T extends object>(
  options: (T & Waiting) | undefined,
): { signal: AbortSignal | undefined; given: T | undefined } {
  if (typeof options !== 'object' || options === null || !('signal' in options)) {
    return { signal: undefined, given: options };
  }
  const { signal, ...others } = options;
  checkWatched({ ...(signal !== undefined && { signal }) });
  return { signal, given: others as unknown as T };
}

/** The signal of a call that has no other options. */
function toSignal(options: Waiting | undefined): AbortSignal | undefined {
  const { signal } = checkOptions(options, ['signal']);
  checkWatched({ ...(signal !== undefined && { signal }) });
  return signal;
}

/** Whether an error is what a signal ended something with. */
function isReason(error: unknown, signal: AbortSignal | undefined): boolean {
  return signal?.aborted === true && error === signal.reason;
}
