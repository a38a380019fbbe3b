import { fileHandle } from './file-calls.ts';
import type { FileStatus } from './file-status.ts';

/**
 * A text that all names of an open file have in common, and no other file ever: neither one that is given its inode
 * number next, nor one of another subvolume. Where the filesystem says nothing by which to tell, a file has another key
 * after each change of its status.
 *
 * @param status filled in with the status of the file
 */
export function fileKey(fd: number, status: FileStatus): string {
  status.readOpen(fd);
  const handle = fileHandle(fd) ?? status.version;
  return `${status.birthKey} ${handle.toString('latin1')}`;
}
