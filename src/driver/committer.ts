import type { Checked } from '../arguments.ts';
import type { DirectoryLock } from '../layers/directory-lock.ts';
import type { Layer } from '../layers/layers.ts';
import { checkNotLost } from '../layers/volatile.ts';
import { quote } from '../quote.ts';
import type { Info, Seal, Watched } from '../snapshot.ts';
import type { CommitRequest, InUsePolicy } from './arguments.ts';
import { type Operations, checkInUse } from './operations.ts';
import type { Resources } from './resources.ts';

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
    return this.#seal(await this.#findActive(key), watched);
  }

  /** Turns an active snapshot into a committed one. */
  async commit(
    request: CommitRequest & { readonly inUse: InUsePolicy },
    watched: Checked<Watched>,
  ): Promise<Info> {
    const { layers, access, reaper, settings } = this.#resources;
    const { name, key, inUse: policy } = request;
    await this.#checkFree(name);
    const layer = await this.#findActive(key);
    // Before the walk, which can take long, and after it again.
    if (policy !== 'allow' && (await layers.inUse(layer))) {
      checkInUse({ key, inUse: true }, policy);
      return this.#commitCopy(request, layer, { ...watched, replace: true });
    }
    const seal = await this.#seal(layer, watched);
    checkInUse(seal, policy);
    if (policy === 'copy' && seal.inUse) {
      return this.#commitCopy(request, layer, { ...watched, replace: true });
    }
    const info = await access.writeOn(`committing ${quote(key)}`, () =>
      this.#operations.commit(request, seal),
    );
    if (settings.asyncRemove !== true) void reaper.reap({ id: info.id, part: 'work' });
    return info;
  }

  /** Makes a committed snapshot of what an active one holds now. */
  async checkpoint(request: CommitRequest, watched: Checked<Watched>): Promise<Info> {
    await this.#checkFree(request.name);
    return this.#commitCopy(request, await this.#findActive(request.key), { ...watched, replace: false });
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
    const { layers, access, reaper, settings } = this.#resources;
    const doing = `committing ${quote(layer.key)}`;
    watched.signal?.throwIfAborted();
    const reservation = await this.#reserve(layer.key);
    const copy = reservation.id;
    try {
      const seal = await layers.copy(layer, copy, watched);
      const info = await access.writeOn(doing, () =>
        this.#operations.commitCopy(request, { layer, copy, seal, replace }),
      );
      if (replace && settings.asyncRemove !== true) void reaper.reap({ id: layer.id, part: 'all' });
      return info;
    } catch (error) {
      await this.#discard(copy);
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
  async #discard(id: number): Promise<void> {
    const { journal, reaper } = this.#resources;
    try {
      // It is not reserved any more if its commit, which had an unknown outcome, has succeeded.
      if (!(await journal.abandon(id))) return;
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

  async #findActive(key: string): Promise<Layer> {
    const { access, reader, layout } = this.#resources;
    const { id, parentId, volatileBoot } = await access.readOn('looking for a key', () =>
      reader.findActive(key),
    );
    checkNotLost(layout, { id, key, volatileBoot });
    return { key, id, base: parentId === null };
  }
}
