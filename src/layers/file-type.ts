import { constants } from 'node:fs';
import type { Change } from '../snapshot.ts';

const TYPES: ReadonlyMap<number, Change['type']> = new Map([
  [constants.S_IFREG, 'file'],
  [constants.S_IFDIR, 'directory'],
  [constants.S_IFLNK, 'symbolic link'],
  [constants.S_IFIFO, 'fifo'],
  [constants.S_IFSOCK, 'socket'],
  [constants.S_IFCHR, 'character device'],
  [constants.S_IFBLK, 'block device'],
]);

/** The type of a file of that mode. */
export function typeOf(mode: number): Change['type'] {
  return TYPES.get(mode & constants.S_IFMT) ?? 'file';
}
