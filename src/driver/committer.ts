import type { Checked } from '../arguments.ts';
import { warn } from '../guarded.ts';
import type { DirectoryLock } from '../layers/directory-lock.ts';
import type { Layer } from '../layers/layers.ts';
import { checkNotLost } from '../layers/volatile.ts';
import { quote } from '../quote.ts';
import type { Info, Seal, Watched } from '../snapshot.ts';
import type { FoundSnapshot, Removal } from '../metadata/rows.ts';
import type { CommitRequest, InUsePolicy } from './arguments.ts';
import { type Operations, checkInUse, toLayer } from './operations.ts';
import type { Resources } from './resources.ts';
import { lockSnapshot } from './snapshot-lock.ts';

/**
 * Commits and checkpoints. What takes long happens outside any lock and before the row changes, so that a layer is
 * durable before it is committed.
 */
export class Committer {
  readonly #resources: Resources;
  readonly #operations: Operations;

  constructor(resources: Resources, operations: Operations) {
    this.#resources = resources;
    this.#operations = operations;
  }

  /** Measures, digests and syncs the layer of an active snapshot. */
  async seal(key: string, watched: Checked<Watched>): Promise<Seal> {
    return this.#withActive({ key, parent: null }, watched, (layer) => this.#seal(layer, watched));
  }

  /** Turns an active snapshot into a committed one. */
  async commit(
    request: CommitRequest & { readonly inUse: InUsePolicy },
    watched: Checked<Watched>,
  ): Promise<Info> {
    const { reaper, settings } = this.#resources;
    await this.#checkFree(request.name);
    const { info, removal } = await this.#withActive(request, watched, (layer) =>
      this.#commit(request, layer, watched),
    );
    // Only now, since the deletion takes the lock of the directory too.
    if (settings.asyncRemove !== true) void reaper.reap(removal).catch((error: unknown) => warn(error));
    return info;
  }

  /** Makes a committed snapshot of what an active one holds now. */
  async checkpoint(request: CommitRequest, watched: Checked<Watched>): Promise<Info> {
    await this.#checkFree(request.name);
    return this.#withActive(request, watched, (layer) =>
      this.#commitCopy(request, layer, { ...watched, replace: false }),
    );
  }

  async #commit(
    request: CommitRequest & { readonly inUse: InUsePolicy },
    layer: Layer,
    watched: Checked<Watched>,
  ): Promise<{ info: Info; removal: Removal }> {
    const { layers, access } = this.#resources;
    const { key, inUse: policy } = request;
    const commitCopy = async (): Promise<{ info: Info; removal: Removal }> => ({
      info: await this.#commitCopy(request, layer, { ...watched, replace: true }),
      removal: { id: layer.id, part: 'all' },
    });
    // Before the walk, which can take long, and after it again.
    if (policy !== 'allow' && (await layers.inUse(layer))) {
      checkInUse({ key, inUse: true }, policy);
      return commitCopy();
    }
    const seal = await this.#seal(layer, watched);
    checkInUse(seal, policy);
    if (policy === 'copy' && seal.inUse) return commitCopy();
    const info = await access.writeOn(`committing ${quote(key)}`, () =>
      this.#operations.commit(request, seal),
    );
    return { info, removal: { id: info.id, part: 'work' } };
  }

  async #seal(layer: Layer, watched: Checked<Watched>): Promise<Seal> {
    const { key, id } = layer;
    return { key, id, ...(await this.#resources.layers.seal(layer, watched)) };
  }

  async #commitCopy(
    request: CommitRequest,
    layer: Layer,
    { replace, ...watched }: Checked<Watched> & { readonly replace: boolean },
  ): Promise<Info> {
    const { layers, access } = this.#resources;
    watched.signal?.throwIfAborted();
    const reservation = await this.#reserve(layer.key);
    const copy = reservation.id;
    try {
      const seal = await layers.copy(layer, copy, watched);
      return await access.writeOn(`committing ${quote(layer.key)}`, () =>
        this.#operations.commitCopy(request, { layer, copy, seal, replace }),
      );
    } catch (error) {
      await this.#discard(reservation);
      throw error;
    } finally {
      reservation.release();
    }
  }

  async #reserve(key: string): Promise<DirectoryLock> {
    let reservation: DirectoryLock | undefined;
    try {
      return await this.#resources.access.writeOn(
        `copying ${quote(key)}`,
        () => (reservation = this.#operations.reserve()),
      );
    } catch (error) {
      reservation?.release();
      throw error;
    }
  }

  /** Gives up a copy. What cannot be given up now is found by a later cleanup, once its lock is free. */
  async #discard(reservation: DirectoryLock): Promise<void> {
    const { journal, reaper } = this.#resources;
    const { id } = reservation;
    try {
      // It is not reserved any more if its commit, which had an unknown outcome, has succeeded.
      if (!(await journal.abandon(id))) return;
      reservation.release();
      await reaper.reap({ id, part: 'all' });
      await reaper.settle();
    } catch {
      // The caller gets the error of the copy.
    }
  }

  async #checkFree(name: string): Promise<void> {
    const { access, reader } = this.#resources;
    await access.readOn('looking for a name', () => reader.checkFree(name));
  }

  /** Runs steps on the layer of an active snapshot, while nobody else mounts, seals, commits, copies or deletes it. */
  async #withActive<T>(
    { key, parent }: Pick<CommitRequest, 'key' | 'parent'>,
    { signal }: Checked<Watched>,
    steps: (layer: Layer) => Promise<T>,
  ): Promise<T> {
    const { reader, held } = this.#resources;
    const doing = `committing ${quote(key)}`;
    const find = (): FoundSnapshot => reader.findActive(key);
    const { snapshot, lock } = await lockSnapshot(this.#resources, find, { doing, signal });
    try {
      const { id, parentId, volatileBoot } = snapshot;
      checkNotLost(held, { id, key, volatileBoot });
      return await steps(toLayer({ key, id, parentId }, parent));
    } finally {
      lock?.release();
    }
  }
}
