import { accessSync, closeSync, constants, lstatSync, mkdirSync, openSync } from 'node:fs';
import { dirname } from 'node:path';
import { SnapshotError, toSnapshotError } from '../errors.ts';
import { type Filesystem, filesystemOf } from '../linux/filesystem.ts';
import { supportsDType, writeInPlace } from '../linux/file-calls.ts';
import { checkPlain, hasDirectory } from '../linux/plain-file.ts';
import { toRoot } from '../arguments.ts';
import { quote } from '../quote.ts';
import { resolveParents } from '../linux/real-path.ts';
import { syncPath } from '../linux/sync-path.ts';
import { backupsOf } from '../metadata/backup/files.ts';
import { HeldRoot } from '../layers/held-root.ts';
import { Layout } from '../layers/layout.ts';

/** The root of a store, checked. */
export interface Root {
  readonly layout: Layout;
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
  const layout = new Layout(resolveParents(toRoot(path)));
  try {
    makeDirectory(layout.root, 'the root');
    checkOwner(layout.root);
    const filesystem = filesystemOf(layout.root);
    if (filesystem.unusable !== undefined) {
      throw new SnapshotError(
        'FAILED_PRECONDITION',
        `the root ${quote(layout.root)} is on ${filesystem.unusable}`,
        {
          hint: 'choose a root on a local filesystem, such as ext4 or xfs',
        },
      );
    }
    accessSync(layout.root, constants.R_OK | constants.W_OK | constants.X_OK);
    checkRestored(layout);
    checkPlain(layout.spareSpace);
    hasDirectory(backupsOf(layout.database));
    hasDirectory(layout.lostAndFound);
    makeDirectory(layout.snapshots, 'the directory of the snapshots', MOVE_THE_ROOT);
    if (lstatSync(layout.snapshots).dev !== lstatSync(layout.root).dev) {
      throw new SnapshotError(
        'FAILED_PRECONDITION',
        `${quote(layout.snapshots)} is on another filesystem than the root`,
        {
          hint: MOVE_THE_ROOT,
        },
      );
    }
    checkTypes(layout.snapshots);
    if (filesystem.copiesOnWrite) keepDatabaseInPlace(layout.root);
    return { layout, held: HeldRoot.open(layout.root), filesystem };
  } catch (error) {
    throw toSnapshotError(error, `opening the root ${quote(layout.root)}`);
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

/** What to do if there is no room for layers on the filesystem of a root. */
const MOVE_THE_ROOT =
  'let the whole root be on one filesystem: move it to the larger one, and give its new path or mount it at the old one with mount --bind';

/** Creates a directory and its missing parents, durably, unless it is there. */
function makeDirectory(path: string, what: string, ifLink = 'give the path that it leads to'): void {
  const found = lstatSync(path, { throwIfNoEntry: false });
  if (found === undefined) {
    const first = mkdirSync(path, { recursive: true, mode: 0o700 });
    if (first !== undefined) {
      for (let made = path; made !== dirname(first); made = dirname(made)) syncPath(dirname(made));
    }
    return;
  }
  if (found.isSymbolicLink()) {
    throw new SnapshotError('FAILED_PRECONDITION', `${what} ${quote(path)} is a symbolic link`, {
      hint: ifLink,
    });
  }
  if (!found.isDirectory()) {
    throw new SnapshotError('FAILED_PRECONDITION', `${what} ${quote(path)} is not a directory`);
  }
}

/** Without the types of files in its directories, a filesystem can be mounted under an overlay, and then cannot be used. */
function checkTypes(snapshots: string): void {
  const fd = openSync(snapshots, constants.O_RDONLY | constants.O_DIRECTORY);
  try {
    if (supportsDType(fd)) return;
  } finally {
    closeSync(fd);
  }
  throw new SnapshotError(
    'FAILED_PRECONDITION',
    `the filesystem of ${quote(snapshots)} does not tell the types of files, which overlayfs needs`,
    { hint: 'make it anew: ext4 with the feature filetype, xfs with ftype=1' },
  );
}

/**
 * The index of the WAL is mapped into memory. Where overwriting it takes space and the disk is full, the kernel kills the
 * process. The directory of the snapshots was made before, so that layers are not concerned.
 */
function keepDatabaseInPlace(root: string): void {
  const fd = openSync(root, constants.O_RDONLY | constants.O_DIRECTORY);
  try {
    writeInPlace(fd);
  } finally {
    closeSync(fd);
  }
}

/** Layers hold other people's setuid programs, and whoever can write to a root can write to them. */
function checkOwner(root: string): void {
  const { uid, mode } = lstatSync(root);
  if (uid !== process.geteuid?.() && uid !== 0) {
    throw new SnapshotError('PERMISSION_DENIED', `the root ${quote(root)} belongs to user ${uid}`);
  }
  if ((mode & 0o022) !== 0) {
    throw new SnapshotError('PERMISSION_DENIED', `others may write to the root ${quote(root)}`, {
      hint: `chmod 700 ${root}`,
    });
  }
}
