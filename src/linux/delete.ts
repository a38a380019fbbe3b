import { chmodSync, closeSync, constants, fchmodSync, openSync, rmdirSync } from 'node:fs';
import { rmdir } from 'node:fs/promises';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { SnapshotError } from '../errors.ts';
import { quote } from '../quote.ts';
import { Descent } from './descent.ts';
import { allEnded } from './descriptors.ts';
import { readBatches } from './directory-entries.ts';
import { errnoOf, ignoreMissing, unlessMissing } from './errno.ts';
import { openDirectoryBeneath } from './file-calls.ts';
import { O_PATH, cString } from './foreign.ts';
import { unlink } from './fs-promises.ts';
import { FileStatus, isDirectory } from './file-status.ts';
import { hasSubvolumes, makeSubvolumeWritable, unlinkProtected, unprotect } from './inode-flags.ts';
import { TimeSlice } from './slices.ts';
import { fdPath, pathIn } from './tree-walk.ts';

/** A directory that is being emptied. */
interface EmptiedDirectory {
  /** The directories in it that are still to be deleted. */
  readonly directories: Buffer[];
  /** Whether reading it took more than one batch. */
  readonly large: boolean;
}

/** How many files are unlinked at a time. */
const PARALLEL = 64;

/**
 * Deletes a file, or a directory and all below it, by its name in an open directory. Each directory is opened relative
 * to its parent's descriptor, without following symbolic links or crossing mounts, so nothing outside can be reached
 * even if the tree is changed meanwhile. Where flags protect a file or directory in the tree, and where a subvolume in it
 * is read-only, it changes that if this process may. It is no error if something vanishes by itself.
 *
 * @throws {SnapshotError} FAILED_PRECONDITION if something is mounted on a directory in it
 * @throws {SnapshotError} PERMISSION_DENIED if flags protect it, and this process may not change them
 * @throws the signal's reason, after deleting a part
 */
export async function deleteEntry(parent: number, name: Buffer, signal?: AbortSignal): Promise<void> {
  const status = new FileStatus();
  if (!status.read(parent, cString(name))) return;
  if (!isDirectory(status.mode)) {
    await removeFile(parent, name, { within: false });
    return;
  }
  const subvolumes = hasSubvolumes(parent);
  using way = new Descent(openDirectoryBeneath(parent, cString('.')));
  // The first stands for the directory that `name` is in.
  const emptied: EmptiedDirectory[] = [{ directories: [name], large: false }];
  const slice = new TimeSlice({ signal });
  for (let last = emptied.at(-1); last !== undefined; last = emptied.at(-1)) {
    signal?.throwIfAborted();
    const next = last.directories.pop();
    if (next !== undefined) {
      const fd = unlessMissing(() => openForDeletion(way.fd, next, subvolumes));
      if (fd === undefined) continue;
      way.enter(fd, next);
      emptied.push(await empty(fd, signal));
      continue;
    }
    emptied.pop();
    if (emptied.length === 0) return;
    const done = way.name;
    closeSync(way.leave());
    // If the way has become shorter than that, directories were moved away, and what is in them stays.
    if (way.length === emptied.length) {
      const within = way.length > 1;
      await removeEmpty(way.fd, done, { ...last, within }).catch(ignoreMissing);
    }
    emptied.length = way.length;
    if (slice.expired) await slice.renew();
  }
}

/** Deletes all in a directory that has just been opened but the directories. */
async function empty(fd: number, signal?: AbortSignal): Promise<EmptiedDirectory> {
  const directories: Buffer[] = [];
  const files: Buffer[] = [];
  let batches = 0;
  for (const batch of readBatches(fd)) {
    batches += 1;
    for (const entry of batch) (entry.isDirectory() ? directories : files).push(entry.name);
    await nextTurn();
  }
  await unlinkAll(fd, files, signal);
  return { directories, large: batches > 1 };
}

/**
 * Unlinks files of an open directory, several at a time. After a failure no more are begun, and none is under way any
 * more when it is thrown.
 */
async function unlinkAll(dir: number, names: readonly Buffer[], signal?: AbortSignal): Promise<void> {
  let next = 0;
  const refused: Buffer[] = [];
  const unlinkOneByOne = async (): Promise<void> => {
    try {
      for (let name = names[next++]; name !== undefined; name = names[next++]) {
        signal?.throwIfAborted();
        try {
          await unlink(pathIn(dir, name)).catch(ignoreMissing);
        } catch (error) {
          if (errnoOf(error) !== 'EPERM') throw error;
          refused.push(name);
        }
      }
    } catch (error) {
      next = names.length;
      throw error;
    }
  };
  await allEnded(Array.from({ length: Math.min(PARALLEL, names.length) }, unlinkOneByOne));
  // One after the other: two of them may be names of one file, whose flags are cleared for each and then set again.
  for (const name of refused) {
    signal?.throwIfAborted();
    await removeFile(dir, name, { within: true });
  }
}

/** Where a file is that is deleted. */
interface Place {
  /** Whether its directory is within the tree that is deleted. */
  readonly within: boolean;
}

async function removeFile(dir: number, name: Buffer, { within }: Place): Promise<void> {
  const path = pathIn(dir, name);
  const remove = (): Promise<void> => unlink(path);
  await remove()
    .catch((error: unknown) => despiteFlags(dir, name, { remove, within, error }))
    .catch(ignoreMissing);
}

/** Removes a directory that has been emptied: on this thread, unless it was large, since then it may take long. */
async function removeEmpty(
  dir: number,
  name: Buffer,
  { large, within }: Pick<EmptiedDirectory, 'large'> & Place,
): Promise<void> {
  const path = pathIn(dir, name);
  const remove = (): void | Promise<void> => (large ? rmdir(path) : rmdirSync(path));
  try {
    await remove();
  } catch (error) {
    await despiteFlags(dir, name, { remove, within, error });
  }
}

/** Removes a file again that could not be removed, if the reason may be flags such as those that chattr(1) sets. */
async function despiteFlags(
  dir: number,
  name: Buffer,
  { remove, within, error }: Place & { readonly remove: () => void | Promise<void>; readonly error: unknown },
): Promise<void> {
  if (errnoOf(error) !== 'EPERM') throw error;
  try {
    if (within) unprotect(dir);
    await unlinkProtected(dir, name, remove);
  } catch (failure) {
    if (errnoOf(failure) !== 'EPERM') throw failure;
    throw new SnapshotError(
      'PERMISSION_DENIED',
      `${quote(name.toString())} cannot be deleted: it or its directory may be immutable or append-only, which this process cannot change`,
      { hint: 'look with lsattr, and let root clear that with chattr -i -a', cause: failure },
    );
  }
}

/** Opens a directory to empty it. Anyone but root may have to give himself the permission first. */
function openForDeletion(parent: number, name: Buffer, subvolumes: boolean): number {
  const file = cString(name);
  try {
    const fd = openDirectoryBeneath(parent, file);
    try {
      if (subvolumes) makeSubvolumeWritable(fd);
      if (process.geteuid?.() !== 0) fchmodSync(fd, 0o700);
      return fd;
    } catch (error) {
      closeSync(fd);
      throw error;
    }
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
