import { constants, openSync } from 'node:fs';
import { SnapshotError } from '../errors.ts';
import { isGone } from '../linux/errno.ts';
import { quote } from '../quote.ts';

/** Opens a directory that is to be mounted, by its path in the mount. @returns a descriptor, for the caller to close */
export type OpenLayer = (path: string) => number;

/**
 * Opens a directory that is to be mounted.
 *
 * @throws {SnapshotError} DATA_LOSS if it is missing or not a directory
 */
export function openLayer(path: string): number {
  return orLost(path, () =>
    openSync(path, constants.O_RDONLY | constants.O_DIRECTORY | constants.O_NOFOLLOW),
  );
}

/** Runs `open`, and says that a layer is lost if that is gone. */
export function orLost(path: string, open: () => number): number {
  try {
    return open();
  } catch (error) {
    if (!isGone(error)) throw error;
    throw new SnapshotError('DATA_LOSS', `the layer ${quote(path)} is missing or not a directory`, {
      cause: error,
    });
  }
}
