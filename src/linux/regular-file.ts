import { closeSync, constants, openSync } from 'node:fs';
import { SnapshotError } from '../errors.ts';
import { quote } from '../quote.ts';
import { type FileStatus, isDirectory, isRegular } from './file-status.ts';
import { type TreeEntry, fdPath } from './tree-walk.ts';

/** The entry of a walk for a file that was regular when the walk came to it. */
type Listed = Pick<TreeEntry, 'hold' | 'path' | 'status'>;

/**
 * Opens a file to read that was regular when a walk came to it. Something else may have taken its place since: a symbolic
 * link is not followed, and a fifo or a device is never opened, since that alone can have effects.
 *
 * @param status filled in with the status of what was opened
 * @throws an error for which `isGone` holds if it is not the same file any more
 */
export function openRegular(entry: Listed, status: FileStatus): number {
  return open(entry, status, () => isRegular(status.mode) && status.isSameAs(entry.status));
}

/** The same for a file that another regular file may have replaced meanwhile: then that is opened. */
export function openRegularOrNew(entry: Listed, status: FileStatus): number {
  return open(entry, status, () => isRegular(status.mode));
}

/** The same for a directory or a regular file that is to be synced. */
export function openToSync(entry: Listed, status: FileStatus): number {
  return open(entry, status, () => isRegular(status.mode) || isDirectory(status.mode));
}

function open(entry: Listed, status: FileStatus, isWanted: () => boolean): number {
  // Held first, which opens nothing, then looked at, and only then opened, all by one descriptor.
  const held = entry.hold();
  try {
    status.readOpen(held);
    if (!isWanted()) throw replaced(entry);
    // Without O_NONBLOCK this could wait for somebody who holds a lease on the file.
    return openSync(fdPath(held), constants.O_RDONLY | constants.O_NONBLOCK);
  } finally {
    closeSync(held);
  }
}

function replaced({ path }: Listed): Error {
  const message = `ESTALE: something else is in the place of ${quote(path.toString())}`;
  return Object.assign(new Error(message), { code: 'ESTALE' });
}

/** The error for a file that became shorter while it was read. */
export function shrunk(path: Buffer): SnapshotError {
  return new SnapshotError(
    'FAILED_PRECONDITION',
    `the file ${quote(path.toString())} became shorter while it was read`,
    { hint: 'let what writes to it come to rest, and try again' },
  );
}
