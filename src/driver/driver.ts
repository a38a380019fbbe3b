import { setImmediate as nextTurn } from 'node:timers/promises';
import { checkName, checkOptions, isThenable, kindOf, waitingOptions, watchedOptions } from '../arguments.ts';
import { checkStore } from '../check/check.ts';
import { SnapshotError, toSnapshotError, wrongType } from '../errors.ts';
import { resolveParents } from '../linux/real-path.ts';
import { backupDatabase } from '../metadata/backup/backup.ts';
import type { Span } from '../metadata/listing.ts';
import type { Removal } from '../metadata/rows.ts';
import { quote } from '../quote.ts';
import type { CheckOptions, Report } from '../report.ts';
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
  OverlaySnapshotter,
  Owner,
  PrepareOptions,
  Progress,
  RemoveResult,
  Seal,
  Tally,
  Transaction,
  UpdateOptions,
  Usage,
  ViewOptions,
  Waiting,
  Watched,
} from '../snapshot.ts';
import { isReason } from './access.ts';
import {
  toCheckpointRequest,
  toCommitRequest,
  toDiffOptions,
  toQueuedPrepare,
  toQueuedView,
  toUpdateRequest,
} from './arguments.ts';
import { removeAbandonedRuns } from './abandoned-runs.ts';
import { Committer } from './committer.ts';
import { diffSnapshots } from './diff.ts';
import { Mounter } from './mounter.ts';
import { Operations } from './operations.ts';
import { type DriverOptions, toSettings } from './options.ts';
import { type Resources, openResources } from './resources.ts';
import { OpenTransaction } from './transaction.ts';

/**
 * The snapshotter on overlayfs: rows in SQLite, layers on disk. Several drivers, in one process or in many, may have
 * the same root open.
 */
export class OverlayDriver implements OverlaySnapshotter {
  readonly #resources: Resources;
  readonly #operations: Operations;
  readonly #committer: Committer;
  readonly #mounter: Mounter;
  readonly #seals = new WeakSet<object>();
  #closing: Promise<void> | undefined;

  private constructor(resources: Resources) {
    this.#resources = resources;
    this.#operations = new Operations(resources);
    this.#committer = new Committer(resources, this.#operations);
    this.#mounter = new Mounter(resources, this.#operations);
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
   * @throws {SnapshotError} DATA_LOSS if the database is not one, or is damaged
   */
  static async open(root: string, options?: DriverOptions): Promise<OverlayDriver> {
    const settings = toSettings(options);
    const resources = await openResources(root, settings);
    if (settings.asyncRemove !== true) {
      resources.reaper.resume((signal) => removeAbandonedRuns(resources, signal));
    }
    return new OverlayDriver(resources);
  }

  async prepare(key: string, parent?: string | null, options?: PrepareOptions & Waiting): Promise<Mount[]> {
    const { signal, ...request } = toQueuedPrepare(key, parent, options);
    return this.#resources.access.write(`preparing ${quote(key)}`, () => this.#operations.prepare(request), {
      signal,
    });
  }

  async view(key: string, parent?: string | null, options?: ViewOptions & Waiting): Promise<Mount[]> {
    const { signal, ...request } = toQueuedView(key, parent, options);
    return this.#resources.access.write(`viewing ${quote(key)}`, () => this.#operations.prepare(request), {
      signal,
    });
  }

  async mounts(key: string): Promise<Mount[]> {
    checkName(key, 'key');
    return this.#resources.access.read('reading mounts', () => this.#operations.mounts(key));
  }

  async mount(key: string, target: string, options?: MountCallOptions): Promise<void> {
    checkName(key, 'key');
    await this.#resources.access.run(() => this.#mounter.mount(key, target, options));
  }

  async openMount(key: string, options?: MountCallOptions): Promise<DetachedMount> {
    checkName(key, 'key');
    return this.#resources.access.run(() => this.#mounter.openMount(key, options));
  }

  async unmount(target: string, options?: { lazy?: boolean }): Promise<void> {
    await this.#resources.access.run(() => this.#mounter.unmount(target, options));
  }

  async commit(name: string, key: string, options?: CommitOptions): Promise<Info> {
    const { signal, onProgress, ...request } = toCommitRequest(name, key, options);
    return this.#resources.access.run(() => this.#committer.commit(request, { signal, onProgress }));
  }

  async checkpoint(name: string, key: string, options?: CheckpointOptions): Promise<Info> {
    const { signal, onProgress, ...request } = toCheckpointRequest(name, key, options);
    return this.#resources.access.run(() => this.#committer.checkpoint(request, { signal, onProgress }));
  }

  async seal(key: string, options?: Watched): Promise<Seal> {
    checkName(key, 'key');
    const watched = checkOptions(options, watchedOptions<Progress>());
    const seal = await this.#resources.access.run(() => this.#committer.seal(key, watched));
    this.#seals.add(seal);
    return seal;
  }

  async remove(key: string, options?: Waiting): Promise<RemoveResult> {
    checkName(key, 'key');
    const { signal } = checkOptions(options, waitingOptions);
    const remove = (): Removal => this.#operations.remove(key);
    const { access } = this.#resources;
    return this.#reap(await access.write(`removing ${quote(key)}`, remove, { frees: true, signal }));
  }

  async delete(name: string, options?: Waiting): Promise<RemoveResult> {
    checkName(name, 'name');
    const { signal } = checkOptions(options, waitingOptions);
    const remove = (): Removal => this.#operations.delete(name);
    const { access } = this.#resources;
    return this.#reap(await access.write(`deleting ${quote(name)}`, remove, { frees: true, signal }));
  }

  async parent(keyOrName: string): Promise<string | null> {
    return (await this.stat(keyOrName)).parent;
  }

  async exists(keyOrName: string): Promise<boolean> {
    checkName(keyOrName, 'key or name');
    const { access, reader } = this.#resources;
    return access.read('looking for a snapshot', () => reader.lookUp(keyOrName) !== undefined);
  }

  async stat(keyOrName: string): Promise<Info> {
    checkName(keyOrName, 'key or name');
    return this.#resources.access.read('reading a snapshot', () => this.#operations.stat(keyOrName));
  }

  async update(
    keyOrName: string,
    options: UpdateOptions & Waiting,
    fieldpaths?: readonly string[],
  ): Promise<Info> {
    const { signal, ...request } = toUpdateRequest(keyOrName, options, fieldpaths);
    return this.#resources.access.write(
      `updating ${quote(keyOrName)}`,
      () => this.#operations.update(request),
      { signal },
    );
  }

  async usage(keyOrName: string): Promise<Usage> {
    checkName(keyOrName, 'key or name');
    const { access, reader, layers } = this.#resources;
    const { id, kind, parentId, usage } = await access.read('reading usage', () => reader.find(keyOrName));
    if (kind === 'active') return layers.usage({ key: keyOrName, id, base: parentId === null });
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
      // The return() of a generator would first wait for the next snapshot, however long the search for it takes.
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
    checkName(name, 'key or name');
    const { access, reader } = this.#resources;
    return access.read('reading children', () =>
      reader.children(name).map((child) => this.#operations.info(child)),
    );
  }

  async chain(keyOrName: string): Promise<Info[]> {
    checkName(keyOrName, 'key or name');
    const { access, reader } = this.#resources;
    return access.read('reading ancestors', () =>
      reader.chain(keyOrName).map((ancestor) => this.#operations.info(ancestor)),
    );
  }

  async owner(path: string): Promise<Owner> {
    if (typeof path !== 'string') throw wrongType(`the path must be a string, not ${kindOf(path)}`);
    const { access, layout, reader } = this.#resources;
    return access.read('looking for an owner', () => {
      const id = layout.idOf(path.startsWith('/') ? resolveParents(path) : path);
      const record = id === undefined ? undefined : reader.statById(id);
      if (record === undefined) throw new SnapshotError('NOT_FOUND', `no snapshot owns ${quote(path)}`);
      const descendants = reader.descendants(record.id).map((one) => this.#operations.info(one));
      return { snapshot: this.#operations.info(record), descendants };
    });
  }

  async transaction<T>(fn: (tx: Transaction) => T): Promise<T> {
    if (typeof fn !== 'function') throw wrongType(`a transaction needs a function, not ${kindOf(fn)}`);
    let removals: readonly Removal[] = [];
    const failure: { error?: unknown } = {};
    const run = (): T => {
      const tx = new OpenTransaction(this.#resources, this.#operations, this.#seals);
      try {
        const result = fn(tx);
        if (isThenable(result)) {
          Promise.resolve(result).catch(() => {});
          throw wrongType('the function of a transaction must not be asynchronous');
        }
        return result;
      } catch (error) {
        failure.error = error;
        throw error;
      } finally {
        removals = tx.end();
      }
    };
    const { access } = this.#resources;
    const result = await access.write('a transaction', run, { once: true }).catch((error: unknown) => {
      // What the function itself threw goes to the caller as it is.
      throw 'error' in failure ? failure.error : error;
    });
    await Promise.all(removals.map((removal) => this.#reap(removal)));
    return result;
  }

  diff(keyOrName: string, options?: DiffOptions): AsyncGenerator<Change, void, undefined> {
    checkName(keyOrName, 'key or name');
    return diffSnapshots(this.#resources, this.#operations, keyOrName, toDiffOptions(options));
  }

  async cleanup(options?: CleanupOptions): Promise<CleanupResult> {
    const watched = checkOptions(options, watchedOptions<Tally>());
    const { access, reaper } = this.#resources;
    try {
      return await access.run(async () => {
        await removeAbandonedRuns(this.#resources, watched.signal);
        return reaper.cleanup(watched);
      });
    } catch (error) {
      throw isReason(error, watched.signal) ? error : toSnapshotError(error, 'cleaning up');
    }
  }

  async pendingRemovals(): Promise<number> {
    const { access, reader } = this.#resources;
    return access.read('reading the removal journal', () => reader.pendingRemovals());
  }

  async check(options?: CheckOptions): Promise<Report> {
    const { access, held, layout } = this.#resources;
    return access.run(() => {
      held.check();
      return checkStore(layout.root, options);
    });
  }

  async backup(file: string, options?: BackupOptions): Promise<void> {
    const { access, held, layout } = this.#resources;
    await access.run(() => {
      held.check();
      return backupDatabase(layout.database, file, options);
    });
  }

  close(): Promise<void> {
    this.#closing ??= this.#resources.close();
    return this.#closing;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  /** Deletes the directory of a removed snapshot, now or in the background, as the driver was opened. */
  async #reap(removal: Removal): Promise<RemoveResult> {
    const { reaper, settings } = this.#resources;
    if (settings.asyncRemove === 'background') reaper.reapLater(removal);
    if (settings.asyncRemove !== false) return {};
    const deferred = await reaper.reap(removal);
    return deferred === undefined ? {} : { deferred };
  }

  async #visit(
    fn: (info: Info) => void | Promise<void>,
    filters: readonly string[],
    span: Span,
  ): Promise<void> {
    if (typeof fn !== 'function') throw wrongType(`a walk needs a function, not ${kindOf(fn)}`);
    for await (const info of this.#list(filters, span)) await fn(info);
  }

  async *#list(
    filters: readonly string[],
    span: Span,
    ending?: AbortSignal,
  ): AsyncGenerator<Info, undefined, undefined> {
    const { access, reader } = this.#resources;
    const pages = await access.read('listing', () => reader.pages(filters, span));
    for (;;) {
      const page = await access.read('listing', () => pages.next());
      if (page.done === true || ending?.aborted === true) return;
      for (const record of page.value) yield this.#operations.info(record);
      await nextTurn();
    }
  }
}
