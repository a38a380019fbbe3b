import { chmodSync, closeSync, constants, lstatSync, mkdirSync, openSync, realpathSync } from 'node:fs';
import { join } from 'node:path';
import { SnapshotError } from '../errors.ts';
import { Layout } from '../layers/layout.ts';
import { errnoOf, isSystemError } from '../linux/errno.ts';
import { FileStatus } from '../linux/file-status.ts';
import { O_PATH } from '../linux/foreign.ts';
import { quote } from '../quote.ts';

/** How deep commands can be nested that run in trees of their own. */
const MAX_NESTED = 64;

/**
 * The directory to mount the tree of a command on, in the mount namespace of the command: `/run/overlite-run/tree`, or
 * `run/tree` in the store where this process may not write to `/run`. All commands have the same one, since none sees
 * the mount of another; in a command that was itself started in a tree, it is `tree-2`, so that both can be reached.
 *
 * It is never removed: that would detach whatever any namespace has mounted on it. So it is not in `TMPDIR` either, which
 * others clean.
 *
 * Call it in the namespace of the command.
 */
export function findMountPoint(root: string): string {
  const place = placeOf(root);
  for (let number = 1; number <= MAX_NESTED; number += 1) {
    const path = join(place, number === 1 ? 'tree' : `tree-${number}`);
    makeDirectory(path, 0o700);
    if (!isMountRoot(path)) return path;
  }
  throw new SnapshotError(
    'FAILED_PRECONDITION',
    `something is mounted on all directories in ${quote(place)}`,
  );
}

/**
 * The directory that `findMountPoint` finds one in, which only this user can change.
 *
 * @throws {SnapshotError} FAILED_PRECONDITION if there is something else in its place
 */
function placeOf(root: string): string {
  try {
    const run = realpathSync('/run');
    if (isOwn(run)) {
      // Any user can reach it, as a command need not stay root.
      const system = join(run, 'overlite-run');
      makeDirectory(system, 0o755);
      if (isOwn(system)) return system;
    }
  } catch (error) {
    // There is no such directory, or it is read-only.
    if (!isSystemError(error)) throw error;
  }
  const place = new Layout(realpathSync(root)).run;
  makeDirectory(place, 0o700);
  if (isOwn(place)) return place;
  throw new SnapshotError('FAILED_PRECONDITION', `${quote(place)} is not a directory of this user alone`);
}

function makeDirectory(path: string, mode: number): void {
  try {
    mkdirSync(path, { mode });
    // Whatever the umask has taken away.
    chmodSync(path, mode);
  } catch (error) {
    if (errnoOf(error) !== 'EEXIST') throw error;
  }
}

/** Whether a path is a directory of this user, in which nobody else can replace anything. */
function isOwn(path: string): boolean {
  const { uid, mode } = lstatSync(path);
  return (
    (mode & constants.S_IFMT) === constants.S_IFDIR && uid === process.geteuid?.() && (mode & 0o022) === 0
  );
}

function isMountRoot(path: string): boolean {
  const fd = openSync(path, O_PATH | constants.O_DIRECTORY | constants.O_NOFOLLOW);
  try {
    const status = new FileStatus();
    status.readOpen(fd);
    return status.isMountRoot;
  } finally {
    closeSync(fd);
  }
}
