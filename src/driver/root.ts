import { accessSync, closeSync, constants, fstatSync, lstatSync, mkdirSync } from 'node:fs';
import { dirname } from 'node:path';
import { SnapshotError, toSnapshotError } from '../errors.ts';
import { type Filesystem, filesystemOf } from '../linux/filesystem.ts';
import { openDirectoryBeneath, supportsDType } from '../linux/file-calls.ts';
import { writeInPlace } from '../linux/inode-flags.ts';
import { cString } from '../linux/foreign.ts';
import { checkPlain, hasDirectory } from '../linux/plain-file.ts';
import { toRoot } from '../arguments.ts';
import { quote } from '../quote.ts';
import { resolveParents } from '../linux/real-path.ts';
import { syncPath } from '../linux/sync-path.ts';
import { backupsOf } from '../metadata/backup/files.ts';
import { fdPath } from '../linux/tree-walk.ts';
import type { Layout } from '../layers/layout.ts';
import { HeldRoot, MOVE_THE_ROOT } from '../layers/held-root.ts';

/** The root of a store, checked. */
export interface Root {
  readonly held: HeldRoot;
  readonly filesystem: Filesystem;
}

/**
 * Checks the root of a store, makes it if it is not there, and makes the directory of the snapshots in it.
 *
 * @throws {TypeError} if it is not a string
 * @throws {SnapshotError} INVALID_ARGUMENT if it is empty or holds a NUL
 * @throws {SnapshotError} FAILED_PRECONDITION if it is not a directory, is a symbolic link, cannot be written to, or
 *   is on a filesystem that a store cannot be on
 * @throws {SnapshotError} PERMISSION_DENIED if it is someone else's, or others may write to it
 */
export function openRoot(path: unknown): Root {
  // Links may lead to a root, which is then known by where it really is. It must not be one itself.
  let root = toRoot(path);
  let held: HeldRoot | undefined;
  try {
    root = resolveParents(root);
    makeRoot(root);
    held = new HeldRoot(root);
    checkOwner(held);
    const filesystem = filesystemOf(fdPath(held.fd));
    if (filesystem.unusable !== undefined) {
      throw new SnapshotError('FAILED_PRECONDITION', `the root ${quote(root)} is on ${filesystem.unusable}`, {
        hint: 'choose a root on a local filesystem, such as ext4 or xfs',
      });
    }
    accessSync(fdPath(held.fd), constants.R_OK | constants.W_OK | constants.X_OK);
    const { layout } = held;
    checkRestored(layout);
    checkPlain(layout.spareSpace);
    if (hasDirectory(backupsOf(layout.database))) held.make('backups');
    if (hasDirectory(layout.lostAndFound)) held.make('lost+found');
    checkSnapshots(held);
    if (filesystem.copiesOnWrite) keepDatabaseInPlace(held);
    return { held, filesystem };
  } catch (error) {
    held?.close();
    throw toSnapshotError(error, `opening the root ${quote(root)}`);
  }
}

/**
 * Checks that no new database waits to be put in place: the present one may be gone already.
 *
 * @throws {SnapshotError} FAILED_PRECONDITION if one does
 */
export function checkRestored({ root, restoring }: Layout): void {
  checkPlain(restoring);
  if (lstatSync(restoring, { throwIfNoEntry: false }) === undefined) return;
  throw new SnapshotError('FAILED_PRECONDITION', `restoring ${quote(root)} was interrupted`, {
    hint: 'run overlite restore once more, which finishes it',
  });
}

/** Creates a root and its missing parents, durably, unless it is there. */
function makeRoot(path: string): void {
  const found = lstatSync(path, { throwIfNoEntry: false });
  if (found === undefined) {
    const first = mkdirSync(path, { recursive: true, mode: 0o700 });
    if (first !== undefined) {
      for (let made = path; made !== dirname(first); made = dirname(made)) syncPath(dirname(made));
    }
    return;
  }
  if (found.isSymbolicLink()) {
    throw new SnapshotError('FAILED_PRECONDITION', `the root ${quote(path)} is a symbolic link`, {
      hint: 'give the path that it leads to',
    });
  }
  if (!found.isDirectory()) {
    throw new SnapshotError('FAILED_PRECONDITION', `the root ${quote(path)} is not a directory`);
  }
}

/** Makes the directory of the snapshots unless it is there, and checks that snapshots can be in it. */
function checkSnapshots(held: HeldRoot): void {
  const snapshots = held.make('snapshots');
  const path = held.layout.snapshots;
  if (fstatSync(snapshots).dev !== fstatSync(held.fd).dev) {
    throw new SnapshotError('FAILED_PRECONDITION', `${quote(path)} is on another filesystem than the root`, {
      hint: MOVE_THE_ROOT,
    });
  }
  if (withOpen(snapshots, supportsDType)) return;
  // Such a filesystem can be mounted under an overlay, and then cannot be used.
  throw new SnapshotError(
    'FAILED_PRECONDITION',
    `the filesystem of ${quote(path)} does not tell the types of files, which overlayfs needs`,
    { hint: 'make it anew: ext4 with the feature filetype, xfs with ftype=1' },
  );
}

/** Opens a directory once more, so that it is read from its beginning. */
function withOpen<T>(directory: number, body: (fd: number) => T): T {
  const fd = openDirectoryBeneath(directory, cString('.'));
  try {
    return body(fd);
  } finally {
    closeSync(fd);
  }
}

/**
 * The index of the WAL is mapped into memory. Where overwriting it takes space and the disk is full, the kernel kills the
 * process. The directory of the snapshots was made before, so that layers are not concerned.
 */
function keepDatabaseInPlace(held: HeldRoot): void {
  writeInPlace(held.fd);
}

/** Layers hold other people's setuid programs, and whoever can write to a root can write to them. */
function checkOwner({ fd, layout: { root } }: HeldRoot): void {
  const { uid, mode } = fstatSync(fd);
  if (uid !== process.geteuid?.() && uid !== 0) {
    throw new SnapshotError('PERMISSION_DENIED', `the root ${quote(root)} belongs to user ${uid}`);
  }
  if ((mode & 0o022) !== 0) {
    throw new SnapshotError('PERMISSION_DENIED', `others may write to the root ${quote(root)}`, {
      hint: `chmod 700 ${root}`,
    });
  }
}
