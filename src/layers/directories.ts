import { closeSync, type Dirent, fchmodSync, fchownSync, fsyncSync, readdirSync } from 'node:fs';
import { SnapshotError, toSnapshotError } from '../errors.ts';
import { errnoOf, ignoreMissing, unlessGone } from '../linux/errno.ts';
import { createDirectory, openDirectoryBeneath, removeDirectory } from '../linux/file-calls.ts';
import { FileStatus, isDirectory } from '../linux/file-status.ts';
import { cString } from '../linux/foreign.ts';
import { fdPath } from '../linux/tree-walk.ts';
import type { Participant } from '../metadata/transactor.ts';
import { quote } from '../quote.ts';
import type { Labels } from '../snapshot.ts';
import { GID_MAPPING, UID_MAPPING, mappedRoot } from './id-mapping.ts';
import { type HeldRoot, unlessHidden } from './held-root.ts';
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

/** The directory of an id that was made in the present transaction. */
interface NewDirectory {
  readonly id: number;
  /** The directories in it. */
  readonly parts: readonly ('fs' | 'work')[];
  /** The lock on it, if it is for a copy: that is made and synced later. */
  readonly reservation?: DirectoryLock;
}

const FS = cString('fs');
const WORK = cString('work');

/**
 * Makes the layer of a new snapshot in its open directory, with owner and mode of the parent's layer. The owner is
 * mapped if labels say so.
 */
export function makeLayer(
  root: HeldRoot,
  directory: number,
  { parentId, labels }: Pick<NewDirectories, 'parentId' | 'labels'>,
): void {
  const model = parentId === null ? undefined : statusOfLayer(root, parentId);
  makeIn(directory, FS, {
    uid: mappedRoot(labels, UID_MAPPING) ?? model?.uid ?? process.geteuid?.() ?? 0,
    gid: mappedRoot(labels, GID_MAPPING) ?? model?.gid ?? process.getegid?.() ?? 0,
    mode: model === undefined ? 0o755 : model.mode & 0o7777,
  });
}

/** Makes the directory that overlayfs needs to write to a layer, in the open directory of a snapshot. */
export function makeWork(directory: number): void {
  makeIn(directory, WORK, { uid: process.geteuid?.() ?? 0, gid: process.getegid?.() ?? 0, mode: 0o711 });
}

/** Makes a directory in an open one, with that owner and mode. */
function makeIn(
  directory: number,
  name: Buffer,
  { uid, gid, mode }: { readonly uid: number; readonly gid: number; readonly mode: number },
): void {
  createDirectory(directory, name, mode);
  // It mostly is as it should be, and a look costs less than to open it.
  found.read(directory, name);
  if (found.uid === uid && found.gid === gid && (found.mode & 0o7777) === mode) return;
  const fd = openDirectoryBeneath(directory, name);
  try {
    fchownSync(fd, uid, gid);
    // After the owner, since that resets bits of the mode, and not by mkdir alone, which obeys the umask.
    fchmodSync(fd, mode);
  } finally {
    closeSync(fd);
  }
}

// Each look fills one of these in again.
const found = new FileStatus();
const parent = new FileStatus();

/** The entries of an open directory. */
function entriesOf(fd: number): Dirent<Buffer>[] {
  return readdirSync(fdPath(fd), { withFileTypes: true, encoding: 'buffer' });
}

/** Whether the directory of an id holds at most an empty `fs` and an empty `work`, as a new snapshot's does. */
export function isSkeleton(root: HeldRoot, id: number): boolean {
  return entriesWithin(root, id).every((entry) => {
    const name = entry.name.toString('latin1');
    if ((name !== 'fs' && name !== 'work') || !entry.isDirectory()) return false;
    return entriesWithin(root, id, name).length === 0;
  });
}

/** The entries of the directory of an id; none if it is gone or mounted over, or this process may not read it. */
export function entriesWithin(root: HeldRoot, id: number, inside?: 'fs' | 'work'): Dirent<Buffer>[] {
  try {
    return unlessHidden(() => root.with(id, inside, entriesOf)) ?? [];
  } catch (error) {
    if (errnoOf(error) === 'EACCES') return [];
    throw error;
  }
}

/** Removes the directories of an id if they are empty, never what they hold. @returns whether they are gone */
export function removeSkeleton(root: HeldRoot, id: number): boolean {
  try {
    root.with(id, undefined, (directory) => {
      for (const name of [WORK, FS]) removeIfThere(directory, name);
    });
    removeIfThere(root.snapshots, cString(String(id)));
    return true;
  } catch (error) {
    return errnoOf(error) === 'ENOENT';
  }
}

function removeIfThere(directory: number, name: Buffer): void {
  try {
    removeDirectory(directory, name);
  } catch (error) {
    ignoreMissing(error);
  }
}

/** The status of the layer of a parent, which need not be readable. It is valid until the next call. */
function statusOfLayer(root: HeldRoot, id: number): FileStatus {
  const status = parent;
  const isThere = unlessGone(() => root.with(id, undefined, (directory) => status.read(directory, FS)));
  if (isThere !== true || !isDirectory(status.mode)) {
    throw new SnapshotError('DATA_LOSS', `the layer ${quote(root.layout.fs(id))} of the parent is missing`, {
      hint: 'delete the parent and all of its descendants, and build them again',
    });
  }
  // This says so.
  if (status.isMountRoot) closeSync(root.open(id, 'fs'));
  return status;
}

/**
 * Makes the directories of new snapshots, as a part of the transaction that inserts their rows: they are durable
 * before its COMMIT, and removed if it is rolled back.
 */
export class Directories implements Participant {
  /** Which directories are synced: none, the last one, which an ordered journal makes enough, or each. */
  readonly #sync: 'none' | 'last' | 'each';
  readonly #root: HeldRoot;
  #made: NewDirectory[] = [];

  constructor(root: HeldRoot, sync: 'none' | 'last' | 'each') {
    this.#root = root;
    this.#sync = sync;
  }

  /** Makes the directories of a snapshot whose row has just been inserted. */
  make({ id, writable, parentId, labels }: NewDirectories): void {
    try {
      this.#mkdir(id);
      this.#made.push({ id, parts: writable ? ['fs', 'work'] : ['fs'] });
      this.#root.with(id, undefined, (directory) => {
        makeLayer(this.#root, directory, { parentId, labels });
        if (writable) makeWork(directory);
      });
    } catch (error) {
      throw toSnapshotError(error, `making the directories of snapshot ${id}`);
    }
  }

  /** Makes the directory of a copy whose id has just been reserved, and locks it before anyone else can see it. */
  reserve(id: number): DirectoryLock {
    try {
      this.#mkdir(id);
      this.#made.push({ id, parts: [] });
      const reservation = DirectoryLock.takeNew(this.#root, id);
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
      removeSkeleton(this.#root, id);
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
        this.#root.with(last.id, undefined, fsyncSync);
        return;
      }
      for (const { id, parts } of made) {
        for (const part of [...parts, undefined]) this.#root.with(id, part, fsyncSync);
      }
      fsyncSync(this.#root.snapshots);
    } catch (error) {
      throw toSnapshotError(error, 'making new directories durable');
    }
  }

  end(): void {
    this.#made = [];
  }

  /** Makes the directory of a new id. If it exists already, it belongs to no row, since an id is never used twice. */
  #mkdir(id: number): void {
    const { snapshots } = this.#root;
    const name = cString(String(id));
    try {
      createDirectory(snapshots, name, 0o700);
    } catch (error) {
      if (errnoOf(error) !== 'EEXIST') throw error;
      this.#clearTheWay(id);
      createDirectory(snapshots, name, 0o700);
    }
  }

  /**
   * Clears away what a crash between mkdir and COMMIT has left, which is empty. Anything else is kept in
   * `lost+found/`.
   */
  #clearTheWay(id: number): void {
    if (removeSkeleton(this.#root, id)) return;
    const why = `it was in the way of the new snapshot ${id} and belonged to no snapshot`;
    setAside(this.#root, this.#root.layout.directory(id), id, why);
  }
}
