import { chmodSync, closeSync, constants, fchmodSync, openSync, rmdirSync } from 'node:fs';
import { rmdir } from 'node:fs/promises';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { SnapshotError } from '../errors.ts';
import { allEnded } from './descriptors.ts';
import { readBatches } from './directory-entries.ts';
import { errnoOf, ignoreMissing } from './errno.ts';
import { openDirectoryBeneath } from './file-calls.ts';
import { O_PATH, cString } from './foreign.ts';
import { unlink } from './fs-promises.ts';
import { FileStatus, isDirectory } from './file-status.ts';
import { fdPath, pathIn } from './tree-walk.ts';

/** A directory that is being emptied. */
interface EmptiedDirectory {
  readonly fd: number;
  readonly name: Buffer;
  /** The descriptor of the directory that it is in. */
  readonly parent: number;
  /** The directories in it that are still to be deleted. */
  readonly directories: Buffer[];
  /** Whether reading it took more than one batch. */
  large: boolean;
}

/** How many files are unlinked at a time. */
const PARALLEL = 64;

/**
 * Deletes a file, or a directory and all below it, by its name in an open directory. Each directory is opened relative
 * to its parent's descriptor, without following symbolic links or crossing mounts, so nothing outside can be reached
 * even if the tree is changed meanwhile. It is no error if something vanishes by itself.
 *
 * @throws {SnapshotError} FAILED_PRECONDITION if something is mounted on a directory in it
 * @throws the signal's reason, after deleting a part
 */
export async function deleteEntry(parent: number, name: Buffer, signal?: AbortSignal): Promise<void> {
  const stack: EmptiedDirectory[] = [];
  const enter = async (above: number, directory: Buffer): Promise<void> => {
    const fd = openForDeletion(above, directory);
    const opened: EmptiedDirectory = { fd, name: directory, parent: above, directories: [], large: false };
    stack.push(opened);
    const files: Buffer[] = [];
    for (const batch of readBatches(fd)) {
      opened.large = files.length + opened.directories.length > 0;
      for (const entry of batch) (entry.isDirectory() ? opened.directories : files).push(entry.name);
      await nextTurn();
    }
    await unlinkAll(fd, files, signal);
  };
  const status = new FileStatus();
  if (!status.read(parent, cString(name))) return;
  if (!isDirectory(status.mode)) {
    await unlink(pathIn(parent, name)).catch(ignoreMissing);
    return;
  }
  try {
    await enter(parent, name).catch(ignoreMissing);
    for (let top = stack.at(-1); top !== undefined; top = stack.at(-1)) {
      signal?.throwIfAborted();
      const next = top.directories.pop();
      if (next !== undefined) {
        await enter(top.fd, next).catch(ignoreMissing);
        continue;
      }
      stack.pop();
      closeSync(top.fd);
      await removeEmpty(top).catch(ignoreMissing);
    }
  } finally {
    for (const { fd } of stack) closeSync(fd);
  }
}

/**
 * Unlinks files of an open directory, several at a time. After a failure no more are begun, and none is under way any
 * more when it is thrown.
 */
async function unlinkAll(dir: number, names: readonly Buffer[], signal?: AbortSignal): Promise<void> {
  let next = 0;
  const unlinkOneByOne = async (): Promise<void> => {
    try {
      for (let name = names[next++]; name !== undefined; name = names[next++]) {
        signal?.throwIfAborted();
        await unlink(pathIn(dir, name)).catch(ignoreMissing);
      }
    } catch (error) {
      next = names.length;
      throw error;
    }
  };
  await allEnded(Array.from({ length: Math.min(PARALLEL, names.length) }, unlinkOneByOne));
}

/** Removes a directory that has been emptied: on this thread, unless it was large, since then it may take long. */
async function removeEmpty({ parent, name, large }: EmptiedDirectory): Promise<void> {
  const path = pathIn(parent, name);
  if (large) await rmdir(path);
  else rmdirSync(path);
}

/** Opens a directory to empty it. Anyone but root may have to give himself the permission first. */
function openForDeletion(parent: number, name: Buffer): number {
  const file = cString(name);
  try {
    const fd = openDirectoryBeneath(parent, file);
    if (process.geteuid?.() !== 0) fchmodSync(fd, 0o700);
    return fd;
  } catch (error) {
    if (errnoOf(error) === 'EXDEV') {
      throw new SnapshotError('FAILED_PRECONDITION', `something is mounted on ${name.toString()}`, {
        cause: error,
      });
    }
    if (errnoOf(error) !== 'EACCES') throw error;
  }
  // overlayfs leaves `work/work` with mode 000.
  const fd = openSync(pathIn(parent, name), O_PATH | constants.O_NOFOLLOW);
  try {
    chmodSync(fdPath(fd), 0o700);
  } finally {
    closeSync(fd);
  }
  return openDirectoryBeneath(parent, file);
}
