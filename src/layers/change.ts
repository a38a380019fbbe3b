import { constants } from 'node:fs';

const TYPES = new Map([
  [constants.S_IFREG, 'file'],
  [constants.S_IFDIR, 'directory'],
  [constants.S_IFLNK, 'symbolic link'],
  [constants.S_IFIFO, 'fifo'],
  [constants.S_IFSOCK, 'socket'],
  [constants.S_IFCHR, 'character device'],
  [constants.S_IFBLK, 'block device'],
] as const);

type FileType = typeof TYPES extends Map<unknown, infer Type> ? Type : never;

/** In what a file differs: `time` is that of its last modification, `attributes` the extended ones. */
export type Difference =
  | 'type'
  | 'mode'
  | 'owner'
  | 'size'
  | 'time'
  | 'device'
  | 'target'
  | 'attributes'
  | 'contents';

/** A file that one snapshot has otherwise than another. */
export interface Change {
  readonly kind: 'added' | 'modified' | 'deleted';
  /** From the root of the snapshot, as in `/etc/hosts`, with a slash behind a directory; what is not UTF-8 replaced. */
  readonly path: string;
  /** The same in the bytes that it has. */
  readonly rawPath: Buffer;
  /** What it is; if it was deleted, was. */
  readonly type: FileType;
  /** The length of a regular file in bytes. */
  readonly size: number | null;
  /** In what a modified file differs. */
  readonly differences: readonly Difference[];
}

/** How two snapshots are compared. */
export interface DiffOptions {
  /** What to compare with: a snapshot of any kind, or `null` for nothing at all; the parent unless given. */
  against?: string | null;
  /**
   * Read the contents of all files whose size and time are the same. Unless given, only of those whose times are
   * whole seconds, as archives set them.
   */
  contents?: boolean;
  /** Ends the comparison: it throws the signal's reason. */
  signal?: AbortSignal;
}

/** What a file with such a mode is. */
export function typeOf(mode: number): FileType {
  return TYPES.get(mode & constants.S_IFMT) ?? 'file';
}
