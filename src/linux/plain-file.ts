import { type Stats, closeSync, constants, fstatSync, lstatSync, openSync } from 'node:fs';
import { SnapshotError } from '../errors.ts';
import { quote } from '../quote.ts';

type Kind = Pick<
  Stats,
  'isBlockDevice' | 'isCharacterDevice' | 'isDirectory' | 'isFIFO' | 'isFile' | 'isSocket' | 'isSymbolicLink'
>;

/** What something is, for a message. */
export function describeType(found: Kind): string {
  if (found.isFile()) return 'a file';
  if (found.isDirectory()) return 'a directory';
  if (found.isSymbolicLink()) return 'a symbolic link';
  if (found.isFIFO()) return 'a fifo';
  if (found.isSocket()) return 'a socket';
  return found.isBlockDevice() || found.isCharacterDevice() ? 'a device' : 'of an unknown type';
}

/** The status of a regular file. @returns `undefined` if the path leads to nothing or to another kind of file */
export function statPlain(path: string): Stats | undefined {
  const found = lstatSync(path, { throwIfNoEntry: false });
  return found?.isFile() === true ? found : undefined;
}

/**
 * Checks that a path in a store leads to a regular file or to nothing. A link would lead out of the store, and whoever
 * opens a fifo or a device may wait for ever.
 *
 * @throws {SnapshotError} FAILED_PRECONDITION if something else is there
 */
export function checkPlain(path: string): void {
  const found = lstatSync(path, { throwIfNoEntry: false });
  if (found !== undefined && !found.isFile()) throw notPlain(path, found);
}

/**
 * Opens a regular file, without following a link and without waiting for anybody.
 *
 * @param flags of open(2), such as `constants.O_RDONLY`
 * @throws {SnapshotError} FAILED_PRECONDITION if something else is there
 * @throws a system error if the file is missing
 */
export function openPlain(path: string, flags: number, mode?: number): number {
  // Looked at first: opening a device has effects.
  checkPlain(path);
  const fd = openSync(path, flags | constants.O_NOFOLLOW | constants.O_NONBLOCK | constants.O_NOCTTY, mode);
  const opened = fstatSync(fd);
  if (opened.isFile()) return fd;
  closeSync(fd);
  throw notPlain(path, opened);
}

/**
 * Checks that a path in a store leads to a directory or to nothing.
 *
 * @returns whether there is one
 * @throws {SnapshotError} FAILED_PRECONDITION if something else is there
 */
export function hasDirectory(path: string): boolean {
  const found = lstatSync(path, { throwIfNoEntry: false });
  if (found !== undefined && !found.isDirectory()) throw notPlain(path, found, 'a directory');
  return found !== undefined;
}

function notPlain(path: string, found: Kind, wanted = 'a regular file'): SnapshotError {
  return new SnapshotError('FAILED_PRECONDITION', `${quote(path)} is ${describeType(found)}, not ${wanted}`, {
    hint: 'overlite check says what to do',
  });
}
