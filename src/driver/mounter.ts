import { resolve } from 'node:path';
import { SnapshotError } from '../errors.ts';
import { currentBoot } from '../linux/boot.ts';
import { isMountOf, lookAtOwnMounts } from '../linux/mountinfo.ts';
import type { Found } from '../metadata/reader.ts';
import { type MountCallOptions, mount, unmount } from '../mount/mount.ts';
import { kindOf, quote } from '../names.ts';
import type { Mount } from '../snapshot.ts';
import type { Layers } from './layers.ts';
import type { Layout } from './layout.ts';
import { checkNotLost, clearMark } from './volatile.ts';

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
    const { layout, layers, find, mounts, setBoot } = this.#parts;
    const wanted = await mounts(key);
    const { id, kind, parentId, volatileBoot } = await find(key);
    // The kernel lets a layer be written to by two overlays at once, and ruins it; a bind mount may be there twice.
    if (kind === 'active' && parentId !== null && (await layers.inUse({ key, id, base: false }))) {
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
    await mount(wanted, target, options);
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
