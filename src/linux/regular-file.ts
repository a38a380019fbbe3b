import { constants, openSync } from 'node:fs';
import { SnapshotError } from '../errors.ts';
import { quote } from '../quote.ts';

/**
 * Opens a file that was regular when it was listed. If something else has taken its place since, opening that has no
 * effect: a symbolic link is refused, a fifo does not block, and a terminal does not become the controlling one.
 */
export function openRegular(file: Buffer): number {
  return openSync(
    file,
    constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK | constants.O_NOCTTY,
  );
}

/** The error for a file that became shorter while it was read. */
export function shrunk(path: Buffer): SnapshotError {
  return new SnapshotError(
    'FAILED_PRECONDITION',
    `the file ${quote(path.toString())} became shorter while it was read`,
    { hint: 'let what writes to it come to rest, and try again' },
  );
}
