import { closeSync, type Dirent, fchmodSync, fchownSync, fsyncSync, readdirSync } from 'node:fs';
import { SnapshotError, toSnapshotError } from '../errors.ts';
import { errnoOf, ignoreMissing, unlessGone } from '../linux/errno.ts';
import { createDirectory, openDirectoryBeneath, removeDirectory } from '../linux/file-calls.ts';
import { FileStatus, isDirectory } from '../linux/file-status.ts';
import { cString } from '../linux/foreign.ts';
import { fdPath, pathIn } from '../linux/tree-walk.ts';
import { readXattrs, removeDefaultAcl, setXattr } from '../linux/xattrs.ts';
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

/** How the names of overlayfs's own attributes begin. Any others are the user's. */
export type OwnAttributes = 'trusted.overlay.' | 'user.overlay.';

/** What the layer of a new snapshot is like. */
type LayerOptions = Pick<NewDirectories, 'parentId' | 'labels'> & { readonly ownAttributes: OwnAttributes };

/**
 * Makes the layer of a new snapshot in its open directory, with owner, mode, access control lists and other attributes
 * of the parent's layer, but not those by which overlayfs knows that. The owner is mapped if labels say so.
 */
export function makeLayer(
  root: HeldRoot,
  directory: number,
  { parentId, labels, ownAttributes }: LayerOptions,
): void {
  const model = parentId === null ? undefined : rootOfLayer(root, parentId, ownAttributes);
  makeIn(directory, FS, {
    uid: mappedRoot(labels, UID_MAPPING) ?? model?.status.uid ?? process.geteuid?.() ?? 0,
    gid: mappedRoot(labels, GID_MAPPING) ?? model?.status.gid ?? process.getegid?.() ?? 0,
    mode: model === undefined ? 0o755 : model.status.mode & 0o7777,
  });
  for (const [name, value] of model?.attributes ?? []) setAttribute(pathIn(directory, FS), name, value);
}

/** Sets an attribute of a new layer. Those of security modules depend on what they let this process do. */
function setAttribute(path: Buffer, name: string, value: Buffer): void {
  try {
    setXattr(path, name, value);
  } catch (error) {
    if (!name.startsWith('security.') || !['EPERM', 'EACCES', 'ENOTSUP'].includes(errnoOf(error)))
      throw error;
  }
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

/** What the root of a layer is like. */
interface LayerRoot {
  /** Valid until the next root is looked at. */
  readonly status: FileStatus;
  /** Without overlayfs's own. */
  readonly attributes: readonly (readonly [string, Buffer])[];
}

/** The root of the layer of a parent, which need not be readable. */
function rootOfLayer(root: HeldRoot, id: number, ownAttributes: OwnAttributes): LayerRoot {
  const status = parent;
  const attributes = unlessGone(() =>
    root.with(id, undefined, (directory) => {
      if (!status.read(directory, FS) || !isDirectory(status.mode)) return undefined;
      return readXattrs(pathIn(directory, FS), { only: (name) => !isOwn(name, ownAttributes) });
    }),
  );
  if (attributes === undefined) {
    throw new SnapshotError('DATA_LOSS', `the layer ${quote(root.layout.fs(id))} of the parent is missing`, {
      hint: 'delete the parent and all of its descendants, and build them again',
    });
  }
  // This says so.
  if (status.isMountRoot) closeSync(root.open(id, 'fs'));
  return { status, attributes };
}

/** Whether an attribute is overlayfs's own. The user's of such names have a second `overlay.` in a layer. */
function isOwn(name: string, ownAttributes: OwnAttributes): boolean {
  return name.startsWith(ownAttributes) && !name.startsWith(`${ownAttributes}overlay.`);
}

interface DirectoriesOptions {
  /** Which directories are synced: none, the last one, which an ordered journal makes enough, or each. */
  readonly sync: 'none' | 'last' | 'each';
  readonly ownAttributes: OwnAttributes;
}

/** Something that belongs to no snapshot has the place of a new id's directory, and cannot be moved. */
export class OccupiedIdError extends Error {}

/** Why what is in the way cannot be moved: flags, rights, a mount, or a project with a quota of its own. */
const IMMOVABLE = new Set(['EPERM', 'EACCES', 'EBUSY', 'EXDEV']);

/**
 * Makes the directories of new snapshots, as a part of the transaction that inserts their rows: they are durable
 * before its COMMIT, and removed if it is rolled back.
 */
export class Directories implements Participant {
  readonly #sync: DirectoriesOptions['sync'];
  readonly #root: HeldRoot;
  readonly #ownAttributes: OwnAttributes;
  #made: NewDirectory[] = [];

  constructor(root: HeldRoot, { sync, ownAttributes }: DirectoriesOptions) {
    this.#root = root;
    this.#sync = sync;
    this.#ownAttributes = ownAttributes;
  }

  /**
   * Makes the directories of a snapshot whose row has just been inserted.
   *
   * @throws {OccupiedIdError}
   */
  make({ id, writable, parentId, labels }: NewDirectories): void {
    try {
      this.#mkdir(id);
      this.#made.push({ id, parts: writable ? ['fs', 'work'] : ['fs'] });
      this.#root.with(id, undefined, (directory) => {
        removeDefaultAcl(directory);
        makeLayer(this.#root, directory, { parentId, labels, ownAttributes: this.#ownAttributes });
        if (writable) makeWork(directory);
      });
    } catch (error) {
      if (error instanceof OccupiedIdError) throw error;
      throw toSnapshotError(error, `making the directories of snapshot ${id}`);
    }
  }

  /**
   * Makes the directory of a copy whose id has just been reserved, and locks it before anyone else can see it.
   *
   * @throws {OccupiedIdError}
   */
  reserve(id: number): DirectoryLock {
    try {
      this.#mkdir(id);
      this.#made.push({ id, parts: [] });
      this.#root.with(id, undefined, removeDefaultAcl);
      const reservation = DirectoryLock.takeNew(this.#root, id);
      this.#made[this.#made.length - 1] = { id, parts: [], reservation };
      return reservation;
    } catch (error) {
      if (error instanceof OccupiedIdError) throw error;
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
    try {
      setAside(this.#root, this.#root.layout.directory(id), id, why);
    } catch (error) {
      if (!IMMOVABLE.has(errnoOf(error))) throw error;
      throw new OccupiedIdError(`${why}, and cannot be moved`, { cause: error });
    }
  }
}
