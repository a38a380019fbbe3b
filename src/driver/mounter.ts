import { resolve } from 'node:path';
import { SnapshotError, toSnapshotError } from '../errors.ts';
import { currentBoot } from '../linux/boot.ts';
import { isGone } from '../linux/errno.ts';
import { isMountOf, lookAtOwnMounts } from '../linux/mountinfo.ts';
import type { Found } from '../metadata/reader.ts';
import { mount, openMount, unmount } from '../mount/mount.ts';
import { kindOf } from '../arguments.ts';
import { quote } from '../quote.ts';
import type { DetachedMount, Mount, MountCallOptions } from '../snapshot.ts';
import { DirectoryLock } from '../layers/directory-lock.ts';
import type { Layers } from '../layers/layers.ts';
import type { Layout } from '../layers/layout.ts';
import { checkNotLost, clearMark } from '../layers/volatile.ts';

/** What mounting needs of the driver. */
interface Parts {
  readonly layout: Layout;
  readonly layers: Layers;
  readonly find: (key: string) => Promise<Found>;
  readonly mounts: (key: string) => Promise<Mount[]>;
  /** Records, durably, in which boot a volatile snapshot is mounted. */
  readonly setBoot: (key: string, boot: string) => Promise<void>;
}

/** Mounts the snapshots of a store. */
export class Mounter {
  readonly #parts: Parts;

  constructor(parts: Parts) {
    this.#parts = parts;
  }

  async mount(key: string, target: string, options?: MountCallOptions): Promise<void> {
    await this.#mountOnce(key, (mounts) => mount(mounts, target, options));
  }

  /** Mounts on a descriptor alone. */
  async openMount(key: string, options?: MountCallOptions): Promise<DetachedMount> {
    return this.#mountOnce(key, (mounts) => openMount(mounts, options));
  }

  /** Has a snapshot mounted, unless it is an overlay that is written to already. */
  async #mountOnce<T>(key: string, perform: (mounts: readonly Mount[]) => Promise<T>): Promise<T> {
    const { layout, layers, find, mounts, setBoot } = this.#parts;
    const wanted = await mounts(key);
    const { id, kind, parentId, volatileBoot } = await find(key);
    // A bind mount may be there twice, and a view of an overlay too.
    if (kind !== 'active' || parentId === null) return perform(wanted);
    const lock = this.#lock(key, id);
    try {
      // The kernel lets a layer be written to by two overlays at once, and ruins it.
      if (await layers.inUse({ key, id, base: false })) {
        throw new SnapshotError('FAILED_PRECONDITION', `${quote(key)} is mounted already`, {
          hint: 'bind that mount to where it is wanted too (mount --bind)',
        });
      }
      if (volatileBoot !== null) {
        checkNotLost(layout, { id, key, volatileBoot });
        // Before it is mounted: from then on it is of this boot.
        if (volatileBoot !== currentBoot()) await setBoot(key, currentBoot());
        clearMark(layout, id);
      }
      return await perform(wanted);
    } finally {
      lock.release();
    }
  }

  /** Makes sure that nobody else is about to mount the same layer, in this process or another. */
  #lock(key: string, id: number): DirectoryLock {
    try {
      const lock = DirectoryLock.take(this.#parts.layout, id);
      if (lock !== undefined) return lock;
    } catch (error) {
      if (!isGone(error)) throw toSnapshotError(error, `mounting ${quote(key)}`);
      throw new SnapshotError('DATA_LOSS', `the directory of ${quote(key)} is missing or none`, {
        cause: error,
      });
    }
    throw new SnapshotError('FAILED_PRECONDITION', `${quote(key)} is being mounted by someone else`);
  }

  async unmount(target: string, options?: { lazy?: boolean }): Promise<void> {
    if (typeof target !== 'string') throw new TypeError(`the target must be a string, not ${kindOf(target)}`);
    const { snapshots } = this.#parts.layout;
    const mounts = await lookAtOwnMounts();
    const top = mounts.entries.findLast(({ mountPoint }) => mountPoint === resolve(target));
    if (top === undefined || !isMountOf(mounts, top, snapshots)) {
      throw new SnapshotError('FAILED_PRECONDITION', `nothing of this store is mounted on ${quote(target)}`);
    }
    await unmount(target, options);
  }
}
