import {
  chmodSync,
  chownSync,
  type Dirent,
  lstatSync,
  mkdirSync,
  readdirSync,
  rmdirSync,
  type Stats,
} from 'node:fs';
import { join } from 'node:path';
import { SnapshotError, toSnapshotError } from '../errors.ts';
import { errnoOf, isGone } from '../linux/errno.ts';
import { syncPath } from '../linux/sync-path.ts';
import type { Participant } from '../metadata/transactor.ts';
import { quote } from '../quote.ts';
import type { Labels } from '../snapshot.ts';
import { GID_MAPPING, UID_MAPPING, mappedRoot } from './id-mapping.ts';
import type { HeldRoot } from './held-root.ts';
import type { Layout } from './layout.ts';
import { DirectoryLock } from './directory-lock.ts';
import { setAside } from './lost-and-found.ts';

/** The directories that a new snapshot needs. */
export interface NewDirectories {
  readonly id: number;
  /** Whether to make `work` too. */
  readonly writable: boolean;
  /** The id of the parent, whose layer gives the new one its owner and mode. */
  readonly parentId: number | null;
  readonly labels: Labels;
}

/** The directories of an id that were made in the present transaction. */
interface NewDirectory {
  readonly id: number;
  /** The directories in it. */
  readonly parts: readonly string[];
  /** The lock on it, if it is for a copy: that is made and synced later. */
  readonly reservation?: DirectoryLock;
}

/**
 * Makes the layer of a new snapshot, with owner and mode of the parent's layer. The owner is mapped if labels say so.
 */
export function makeLayer(layout: Layout, { id, parentId, labels }: Omit<NewDirectories, 'writable'>): void {
  const fs = layout.fs(id);
  const model = parentId === null ? undefined : layerOf(layout, parentId);
  mkdirSync(fs, 0o700);
  chownSync(
    fs,
    mappedRoot(labels, UID_MAPPING) ?? model?.uid ?? process.geteuid?.() ?? 0,
    mappedRoot(labels, GID_MAPPING) ?? model?.gid ?? process.getegid?.() ?? 0,
  );
  // After the owner, since that resets bits of the mode, and not by mkdir, which obeys the umask.
  chmodSync(fs, model === undefined ? 0o755 : model.mode & 0o7777);
}

/** Makes the directory that overlayfs needs to write to a layer. */
export function makeWork(layout: Layout, id: number): void {
  mkdirSync(layout.work(id), 0o711);
  chmodSync(layout.work(id), 0o711);
}

/** The entries of a directory; none if it is gone, or this process may not read it. */
export function entriesOf(path: string): Dirent<Buffer>[] {
  try {
    return readdirSync(path, { withFileTypes: true, encoding: 'buffer' });
  } catch (error) {
    if (isGone(error) || errnoOf(error) === 'EACCES') return [];
    throw error;
  }
}

/** Whether the directory of an id holds at most an empty `fs` and an empty `work`, as a new snapshot's does. */
export function isSkeleton(path: string): boolean {
  return entriesOf(path).every((entry) => {
    const name = entry.name.toString('latin1');
    return (
      (name === 'fs' || name === 'work') && entry.isDirectory() && entriesOf(join(path, name)).length === 0
    );
  });
}

/** Removes the directories of an id if they are empty, never what they hold. @returns whether they are gone */
export function removeSkeleton(layout: Layout, id: number): boolean {
  for (const path of [layout.work(id), layout.fs(id), layout.directory(id)]) {
    try {
      rmdirSync(path);
    } catch (error) {
      if (errnoOf(error) !== 'ENOENT') return false;
    }
  }
  return true;
}

function layerOf(layout: Layout, id: number): Stats {
  const found = lstatSync(layout.fs(id), { throwIfNoEntry: false });
  if (found?.isDirectory() === true) return found;
  const fs = quote(layout.show(layout.fs(id)));
  throw new SnapshotError('DATA_LOSS', `the layer ${fs} of the parent is missing`, {
    hint: 'delete the parent and all of its descendants, and build them again',
  });
}

/**
 * Makes the directories of new snapshots, as a part of the transaction that inserts their rows: they are durable
 * before its COMMIT, and removed if it is rolled back.
 */
export class Directories implements Participant {
  readonly #layout: Layout;
  /** Which directories are synced: none, the last one, which an ordered journal makes enough, or each. */
  readonly #sync: 'none' | 'last' | 'each';
  readonly #root: HeldRoot;
  #made: NewDirectory[] = [];

  constructor(root: HeldRoot, sync: 'none' | 'last' | 'each') {
    this.#root = root;
    this.#layout = root.layout;
    this.#sync = sync;
  }

  /** Makes the directories of a snapshot whose row has just been inserted. */
  make({ id, writable, parentId, labels }: NewDirectories): void {
    try {
      this.#mkdir(id, this.#layout.directory(id));
      this.#made.push({ id, parts: [this.#layout.fs(id), ...(writable ? [this.#layout.work(id)] : [])] });
      makeLayer(this.#layout, { id, parentId, labels });
      if (writable) makeWork(this.#layout, id);
    } catch (error) {
      throw toSnapshotError(error, `making the directories of snapshot ${id}`);
    }
  }

  /** Makes the directory of a copy whose id has just been reserved, and locks it before anyone else can see it. */
  reserve(id: number): DirectoryLock {
    try {
      this.#mkdir(id, this.#layout.directory(id));
      this.#made.push({ id, parts: [] });
      const reservation = DirectoryLock.takeNew(this.#layout, id);
      this.#made[this.#made.length - 1] = { id, parts: [], reservation };
      return reservation;
    } catch (error) {
      throw toSnapshotError(error, `making the directory of snapshot ${id}`);
    }
  }

  check(): void {
    this.#root.check();
  }

  mark(): number {
    return this.#made.length;
  }

  undo(mark: number): void {
    for (const { id, reservation } of this.#made.splice(mark).toReversed()) {
      removeSkeleton(this.#layout, id);
      reservation?.release();
    }
  }

  /**
   * Makes the new directories durable. The fsync of a WAL file that is used again does not do that: without this, rows
   * could survive a power cut without their directories.
   */
  sync(): void {
    const made = this.#made.filter(({ reservation }) => reservation === undefined);
    const last = made.at(-1);
    if (last === undefined || this.#sync === 'none') return;
    try {
      if (this.#sync === 'last') {
        syncPath(this.#layout.directory(last.id));
        return;
      }
      for (const { id, parts } of made) {
        for (const path of [...parts, this.#layout.directory(id)]) syncPath(path);
      }
      syncPath(this.#layout.snapshots);
    } catch (error) {
      throw toSnapshotError(error, 'making new directories durable');
    }
  }

  end(): void {
    this.#made = [];
  }

  /** Makes the directory of a new id. If it exists already, it belongs to no row, since an id is never used twice. */
  #mkdir(id: number, directory: string): void {
    try {
      mkdirSync(directory, 0o700);
    } catch (error) {
      if (errnoOf(error) !== 'EEXIST') throw error;
      this.#clearTheWay(id, directory);
      mkdirSync(directory, 0o700);
    }
  }

  /**
   * Clears away what a crash between mkdir and COMMIT has left, which is empty. Anything else is kept in
   * `lost+found/`.
   */
  #clearTheWay(id: number, directory: string): void {
    if (removeSkeleton(this.#layout, id)) return;
    const why = `it was in the way of the new snapshot ${id} and belonged to no snapshot`;
    setAside(this.#layout, directory, id, why);
  }
}
