import { resolve } from 'node:path';
import { string } from '../arguments.ts';
import { SnapshotError, toSnapshotError } from '../errors.ts';
import { checkNotLost, clearMark } from '../layers/volatile.ts';
import { isGone } from '../linux/errno.ts';
import { currentBoot } from '../linux/boot.ts';
import { resolveParents } from '../linux/real-path.ts';
import type { FoundSnapshot } from '../metadata/rows.ts';
import type { OpenLayer } from '../mount/layer.ts';
import { mountOf, openMountOf, unmount } from '../mount/mount.ts';
import { quote } from '../quote.ts';
import type { DetachedMount, Mount, MountCallOptions } from '../snapshot.ts';
import { openLayersOf } from './held-layers.ts';
import type { Operations } from './operations.ts';
import type { Resources } from './resources.ts';
import { lockSnapshot } from './snapshot-lock.ts';

/** Mounts the snapshots of a store. */
export class Mounter {
  readonly #resources: Resources;
  readonly #operations: Operations;

  constructor(resources: Resources, operations: Operations) {
    this.#resources = resources;
    this.#operations = operations;
  }

  async mount(key: string, target: string, options?: MountCallOptions): Promise<void> {
    await this.#mountOnce(key, (open, mounts) => mountOf(open, mounts, target, options));
  }

  async openMount(key: string, options?: MountCallOptions): Promise<DetachedMount> {
    return this.#mountOnce(key, (open, mounts) => openMountOf(open, mounts, options));
  }

  async unmount(target: string, options?: { lazy?: boolean }): Promise<void> {
    const path = resolveParents(resolve(string(target, 'the target')));
    if (!(await this.#isMountOfStore(path))) {
      throw new SnapshotError('FAILED_PRECONDITION', `nothing of this store is mounted on ${quote(target)}`);
    }
    await unmount(path, options);
  }

  async #isMountOfStore(target: string): Promise<boolean> {
    try {
      return await this.#resources.mounts.isMountOf(target);
    } catch (error) {
      if (isGone(error)) return false;
      throw toSnapshotError(error, `unmounting ${quote(target)}`);
    }
  }

  /** Performs the mounts of a snapshot, unless it is an overlay that is mounted for writing already. */
  async #mountOnce<T>(
    key: string,
    perform: (open: OpenLayer, mounts: readonly Mount[]) => Promise<T>,
  ): Promise<T> {
    const { access, held, reader, layers, gate } = this.#resources;
    const doing = `mounting ${quote(key)}`;
    const { snapshot, lock } = await lockSnapshot(this.#resources, () => reader.find(key), { doing });
    try {
      const { id, kind, parentId } = snapshot;
      // A bind mount may be there twice, and a view of an overlay too. The kernel lets two overlays write to one layer,
      // and the layer is ruined.
      if (kind === 'active' && parentId !== null && (await layers.inUse({ key, id, base: false }))) {
        throw new SnapshotError('FAILED_PRECONDITION', `${quote(key)} is mounted already`, {
          hint: 'bind that mount to the other place too (mount --bind)',
        });
      }
      if (parentId !== null) await this.#prepareVolatile(snapshot);
      const mounting = await gate.enter();
      try {
        return await perform(
          openLayersOf(held),
          await access.readOn(doing, () => this.#operations.mounts(key)),
        );
      } finally {
        mounting[Symbol.dispose]();
      }
    } finally {
      lock?.release();
    }
  }

  async #prepareVolatile({ id, name: key, volatileBoot }: FoundSnapshot): Promise<void> {
    const { access, held, writer } = this.#resources;
    if (volatileBoot === null) return;
    checkNotLost(held, { id, key, volatileBoot });
    const boot = currentBoot();
    // Before it is mounted: from then on what it holds is of this boot.
    if (volatileBoot !== boot) {
      await access.writeOn(`mounting ${quote(key)}`, () => writer.setVolatileBoot(key, boot));
    }
    await clearMark(held, id);
  }
}
