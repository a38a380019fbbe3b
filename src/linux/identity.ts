import { closeSync, fstatSync, statSync } from 'node:fs';
import { SnapshotError } from '../errors.ts';
import { quote } from '../quote.ts';
import { openDirectory } from './file-calls.ts';
import { cString } from './foreign.ts';

/** What identifies a file as long as it exists. It can be sent to another process. */
export interface Identity {
  readonly dev: bigint;
  readonly ino: bigint;
}

/** The identity of a file, or of an open one. */
export function identityOf(file: string | number): Identity {
  const { dev, ino } =
    typeof file === 'number' ? fstatSync(file, { bigint: true }) : statSync(file, { bigint: true });
  return { dev, ino };
}

/** @throws {SnapshotError} FAILED_PRECONDITION if a path leads to another file */
export function checkIdentity(path: string, identity: Identity): void {
  if (!isSame(identityOf(path), identity)) throw replaced(path);
}

/**
 * Opens a directory by a path without symbolic links.
 *
 * @throws {SnapshotError} FAILED_PRECONDITION if it is another one
 */
export function openSame(path: string, identity: Identity): number {
  const fd = openDirectory(cString(path));
  if (isSame(identityOf(fd), identity)) return fd;
  closeSync(fd);
  throw replaced(path);
}

function isSame(one: Identity, other: Identity): boolean {
  return one.dev === other.dev && one.ino === other.ino;
}

function replaced(path: string): SnapshotError {
  return new SnapshotError('FAILED_PRECONDITION', `something else is in the place of ${quote(path)}`);
}
