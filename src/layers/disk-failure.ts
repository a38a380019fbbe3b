import { fsyncSync, readSync, readdirSync } from 'node:fs';
import { SnapshotError, mayBeDisk, toSnapshotError } from '../errors.ts';
import { errnoOf } from '../linux/errno.ts';
import { FileStatus } from '../linux/file-status.ts';
import type { HeldRoot } from './held-root.ts';

/** How much is read at a time, and at most of each file, to find out whether a disk fails, in bytes. */
const CHUNK_BYTES = 1024 * 1024;
const MOST_BYTES = 256 * CHUNK_BYTES;

/**
 * The error that callers get, as `toSnapshotError`. Where a read fails, SQLite says that the database is damaged or cannot
 * be opened: if the disk fails, the error says that instead.
 */
export function toStoreError(error: unknown, doing: string, root: HeldRoot): SnapshotError | TypeError {
  const failure = mayBeDisk(error) ? findDiskFailure(root, doing, databaseDescriptors(root)) : undefined;
  return failure ?? toSnapshotError(error, doing);
}

/**
 * Asks the kernel whether the disk of a root fails: by a sync of its directory, a look at it, and by reading the files of
 * the database, whose descriptors are given. Some of what a disk held can be read from memory long after it is gone.
 *
 * @returns the error that says so
 */
export function findDiskFailure(
  root: HeldRoot,
  doing: string,
  descriptors: readonly number[],
): SnapshotError | undefined {
  // Which of these fails depends on the filesystem, and on what it has noticed so far.
  const probes = [
    () => fsyncSync(root.fd),
    () => new FileStatus().readOpen(root.fd),
    ...descriptors.map((fd) => () => readThrough(fd)),
  ];
  for (const probe of probes) {
    try {
      probe();
    } catch (error) {
      if (!(error instanceof Error && errnoOf(error) === 'EIO')) continue;
      return new SnapshotError(
        'UNAVAILABLE',
        `${doing}: the disk that holds the store fails (${error.message})`,
        { cause: error, hint: 'what the kernel says of it is in its log: dmesg' },
      );
    }
  }
  return undefined;
}

/**
 * The descriptors of this process by which SQLite has the files of the database open. Those files must not be opened here:
 * closing them again would drop SQLite's locks.
 */
function databaseDescriptors(root: HeldRoot): number[] {
  const status = new FileStatus();
  return readdirSync('/proc/self/fd')
    .map(Number)
    .filter((fd) => {
      try {
        status.readOpen(fd);
        return root.isOfDatabase(status);
      } catch {
        // The directory itself, which is closed again, or a file that cannot even be looked at.
        return false;
      }
    });
}

function readThrough(fd: number): void {
  const buffer = Buffer.allocUnsafe(CHUNK_BYTES);
  // By positions of its own, so that it moves nothing for others.
  for (let at = 0; at < MOST_BYTES;) {
    const bytes = readSync(fd, buffer, 0, CHUNK_BYTES, at);
    if (bytes === 0) return;
    at += bytes;
  }
}
