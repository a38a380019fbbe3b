import { SnapshotError } from '../errors.ts';
import type { WriteOptions } from '../metadata/write-queue.ts';
import type { MetadataStore } from '../metadata/store.ts';
import { checkName } from '../arguments.ts';
import { quote } from '../quote.ts';
import type { CheckpointOptions, CommitOptions, Info, Seal, Watched } from '../snapshot.ts';
import type { Layer, Layers } from '../layers/layers.ts';
import type { Layout } from '../layers/layout.ts';
import { type Operations, checkUse } from './operations.ts';
import type { Reaper } from '../layers/reaper.ts';
import type { DirectoryLock } from '../layers/directory-lock.ts';
import { checkNotLost } from '../layers/volatile.ts';

/** What commits and checkpoints need of the driver. */
interface Parts {
  readonly layout: Layout;
  readonly store: MetadataStore;
  readonly operations: Operations;
  readonly layers: Layers;
  readonly reaper: Reaper;
  readonly asyncRemove: boolean;
  readonly read: <T>(doing: string, body: () => T) => Promise<T>;
  /** Runs a synchronous write in a transaction, and resolves once it is durable. */
  readonly write: <T>(doing: string, body: () => T, options?: WriteOptions) => Promise<T>;
}

/**
 * The long way to a committed snapshot: what takes time happens outside any lock and before the row changes, so that
 * a layer is durable before it is committed.
 */
export class Committer {
  readonly #layout: Layout;
  readonly #store: MetadataStore;
  readonly #operations: Operations;
  readonly #layers: Layers;
  readonly #reaper: Reaper;
  readonly #asyncRemove: boolean;
  readonly #read: Parts['read'];
  readonly #write: Parts['write'];

  constructor({ layout, store, operations, layers, reaper, asyncRemove, read, write }: Parts) {
    this.#layout = layout;
    this.#store = store;
    this.#operations = operations;
    this.#layers = layers;
    this.#reaper = reaper;
    this.#asyncRemove = asyncRemove;
    this.#read = read;
    this.#write = write;
  }

  /** Measures, digests and syncs the layer of an active snapshot. */
  async seal(key: string, watched: Watched = {}): Promise<Seal> {
    const layer = await this.#findActive(key);
    return { key, id: layer.id, ...(await this.#layers.seal(layer, watched)) };
  }

  /** Turns an active snapshot into a committed one. */
  async commit(name: string, key: string, options: CommitOptions): Promise<Info> {
    await this.#checkFree(name);
    const { inUse: policy = 'allow', labels, parent, ...watched } = options;
    const layer = await this.#findActive(key);
    // Before the walk, which can take long, and after it again.
    if (policy !== 'allow' && (await this.#layers.inUse(layer))) {
      checkUse({ key, inUse: true }, policy);
      return this.#capture(name, layer, { ...options, replace: true });
    }
    const seal = { key, id: layer.id, ...(await this.#layers.seal(layer, watched)) };
    checkUse(seal, policy);
    if (policy === 'copy' && seal.inUse) return this.#capture(name, layer, { ...options, replace: true });
    const info = await this.#write(`committing ${quote(key)}`, () =>
      this.#operations.commit(name, key, { labels, parent, seal }),
    );
    if (!this.#asyncRemove) void this.#reaper.reap({ id: info.id, part: 'work' });
    return info;
  }

  /** Makes a committed snapshot of what an active one holds now. */
  async checkpoint(name: string, key: string, options: CheckpointOptions): Promise<Info> {
    await this.#checkFree(name);
    return this.#capture(name, await this.#findActive(key), { ...options, replace: false });
  }

  async #capture(
    name: string,
    layer: Layer,
    { replace, labels, parent, ...watched }: CommitOptions & { replace: boolean },
  ): Promise<Info> {
    watched.signal?.throwIfAborted();
    const reservation = await this.#reserve(layer.key);
    try {
      const seal = await this.#layers.copy(layer, reservation.id, watched);
      const info = await this.#write(`committing ${quote(layer.key)}`, () =>
        this.#operations.capture(name, layer, { labels, parent, seal, reserved: reservation.id, replace }),
      );
      if (replace && !this.#asyncRemove) void this.#reaper.reap({ id: layer.id, part: 'all' });
      return info;
    } catch (error) {
      await this.#discard(reservation.id);
      throw error;
    } finally {
      reservation.release();
    }
  }

  async #reserve(key: string): Promise<DirectoryLock> {
    let reservation: DirectoryLock | undefined;
    try {
      return await this.#write(`copying ${quote(key)}`, () => (reservation = this.#operations.reserve()));
    } catch (error) {
      reservation?.release();
      throw error;
    }
  }

  /** Gives up a copy. What cannot be given up now is found by a later cleanup, once its lock is gone. */
  async #discard(id: number): Promise<void> {
    try {
      // It is not reserved any more if its commit, of which it was not known, has succeeded.
      const abandoned = await this.#write('giving up a copy', () => this.#store.abandon(id), { frees: true });
      if (!abandoned) return;
      await this.#reaper.reap({ id, part: 'all' });
      await this.#reaper.settle();
    } catch {
      // The error of the copy is the one to tell.
    }
  }

  async #checkFree(name: string): Promise<void> {
    checkName(name, 'name');
    if (await this.#read('looking for a name', () => this.#store.exists(name)))
      throw new SnapshotError('ALREADY_EXISTS', `${quote(name)} is taken`);
  }

  async #findActive(key: string): Promise<Layer> {
    checkName(key, 'key');
    const { id, kind, parentId, volatileBoot } = await this.#read('looking for a key', () =>
      this.#store.find(key),
    );
    if (kind !== 'active') {
      throw new SnapshotError('FAILED_PRECONDITION', `${quote(key)} is not active but ${kind}`);
    }
    checkNotLost(this.#layout, { id, key, volatileBoot });
    return { key, id, base: parentId === null };
  }
}
