import { setTimeout as sleep } from 'node:timers/promises';
import { SnapshotError, toSnapshotError } from '../errors.ts';
import { DirectoryLock } from '../layers/directory-lock.ts';
import { isGone } from '../linux/errno.ts';
import type { FoundSnapshot } from '../metadata/rows.ts';
import { quote } from '../quote.ts';
import type { Resources } from './resources.ts';

/** A snapshot, as it is while its lock is held. */
export interface LockedSnapshot {
  readonly snapshot: FoundSnapshot;
  /** `undefined` for a view of a parent, which has no directory. */
  readonly lock: DirectoryLock | undefined;
}

/**
 * Takes the lock on the directory of a snapshot, by which mounting, sealing, committing, copying and deleting it exclude
 * each other, across drivers and processes. Waits for its holder up to `busyTimeout`.
 *
 * @param find reads the snapshot, before and again under the lock, and throws if it is not of the right kind
 * @throws what `find` throws
 * @throws {SnapshotError} UNAVAILABLE if somebody else keeps the lock
 * @throws {SnapshotError} FAILED_PRECONDITION if the driver is being closed meanwhile
 * @throws {SnapshotError} DATA_LOSS if the directory is missing
 * @throws the reason of `signal`
 */
export async function lockSnapshot(
  { access, closing, held, settings }: Resources,
  find: () => FoundSnapshot,
  { doing, signal }: { readonly doing: string; readonly signal?: AbortSignal | undefined },
): Promise<LockedSnapshot> {
  const deadline = performance.now() + settings.busyTimeout;
  held.check();
  for (let longest = 2; ; longest = Math.min(longest * 2, 32)) {
    const before = await access.readOn(doing, find);
    const { id, name, kind, parentId } = before;
    if (kind === 'view' && parentId !== null) return { snapshot: before, lock: undefined };
    let lock: DirectoryLock | undefined;
    try {
      lock = DirectoryLock.take(held, id);
    } catch (error) {
      if (!isGone(error)) throw toSnapshotError(error, doing);
      // It is gone together with the row if the snapshot has been removed meanwhile.
      await access.readOn(doing, find);
      throw new SnapshotError('DATA_LOSS', `the directory of ${quote(name)} is missing or not a directory`, {
        cause: error,
      });
    }
    if (lock !== undefined) {
      try {
        const snapshot = await access.readOn(doing, find);
        if (snapshot.id === id) return { snapshot, lock };
      } catch (error) {
        lock.release();
        throw error;
      }
      lock.release();
    }
    closing.checkPatience();
    if (performance.now() > deadline) {
      throw new SnapshotError(
        'UNAVAILABLE',
        `${doing}: another call has been using ${quote(name)} for ${settings.busyTimeout} ms`,
        { hint: 'wait until it is mounted, sealed, committed or copied' },
      );
    }
    await sleep(1 + Math.random() * longest, undefined, { signal }).catch(() => signal?.throwIfAborted());
  }
}
