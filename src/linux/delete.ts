import { chmodSync, closeSync, constants, fchmodSync, openSync, rmdir, rmdirSync, unlink } from 'node:fs';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { promisify } from 'node:util';
import { SnapshotError } from '../errors.ts';
import { errnoOf } from './errno.ts';
import { cString } from './foreign.ts';
import { openDirectoryBeneath } from './file-calls.ts';
import { readBatches } from './directory.ts';
import { FileStatus, isDirectory } from './status.ts';
import { fdPath, pathIn } from './tree.ts';

const rmdirOf = promisify(rmdir);
const unlinkOf = promisify(unlink);

const O_PATH = 0o10000000;

/** A directory that is being deleted. */
interface Level {
  readonly fd: number;
  readonly name: Buffer;
  readonly above: number;
  readonly directories: Buffer[];
  /** Whether it took more than one part to read it. */
  large: boolean;
}

/** How many files are unlinked at a time. */
const PARALLEL = 64;

/**
 * Deletes what is in a directory under a name, with all below it. Every directory is entered through a descriptor of
 * the one above it, so that whatever is put in the way meanwhile, nothing outside is reached. What vanishes by itself
 * is no error.
 *
 * @throws {SnapshotError} FAILED_PRECONDITION if something is mounted on anything in it
 * @throws the signal's reason, with a part of it deleted
 */
export async function deleteEntry(parent: number, name: Buffer, signal?: AbortSignal): Promise<void> {
  const levels: Level[] = [];
  const enter = async (above: number, directory: Buffer): Promise<void> => {
    const fd = openForDeletion(above, directory);
    const level: Level = { fd, name: directory, above, directories: [], large: false };
    levels.push(level);
    const files: Buffer[] = [];
    for (const batch of readBatches(fd)) {
      level.large = files.length + level.directories.length > 0;
      for (const entry of batch) (entry.isDirectory() ? level.directories : files).push(entry.name);
      await nextTurn();
    }
    for (let from = 0; from < files.length; from += PARALLEL) {
      await Promise.all(
        files.slice(from, from + PARALLEL).map((file) => unlessGone(unlinkOf(pathIn(fd, file)))),
      );
    }
  };
  const status = new FileStatus();
  if (!status.read(parent, cString(name))) return;
  if (!isDirectory(status.mode)) {
    await unlessGone(unlinkOf(pathIn(parent, name)));
    return;
  }
  try {
    await unlessGone(enter(parent, name));
    for (let level = levels.at(-1); level !== undefined; level = levels.at(-1)) {
      signal?.throwIfAborted();
      const next = level.directories.pop();
      if (next !== undefined) {
        await unlessGone(enter(level.fd, next));
        continue;
      }
      levels.pop();
      closeSync(level.fd);
      await unlessGone(removeEmpty(level));
    }
  } finally {
    for (const { fd } of levels) closeSync(fd);
  }
}

/** Removes a directory that has been emptied: at once, unless that may take long. */
async function removeEmpty({ above, name, large }: Level): Promise<void> {
  const path = pathIn(above, name);
  if (large) await rmdirOf(path);
  else rmdirSync(path);
}

/** Opens a directory to empty it. Other than root, its owner may have to give himself the right to first. */
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

async function unlessGone(deletion: Promise<void>): Promise<void> {
  try {
    await deletion;
  } catch (error) {
    if (errnoOf(error) !== 'ENOENT') throw error;
  }
}
