import { closeSync } from 'node:fs';
import { errnoOf, isGone } from './errno.ts';
import { cString } from './foreign.ts';
import { Descent } from './descent.ts';
import { type DirectoryEntry, readBatches } from './directory-entries.ts';
import { holdBeneath, openDirectory, openDirectoryBeneath, openWithoutMounts } from './file-calls.ts';
import { mergeSorted } from './merge-sorted.ts';
import { FileStatus, isDirectory } from './file-status.ts';

/** A file of a tree. A walk yields the same object for each file, so it is valid only until the next one. */
export interface TreeEntry {
  /** The raw bytes of its path from the root of the tree, with a slash behind a directory. The root itself is `/`. */
  readonly path: Buffer;
  /** The path again, one character for each byte. */
  readonly text: string;
  /** How many directories it is below: 0 for the root, and 1 for what is in that. */
  readonly depth: number;
  /** The raw bytes of its name in its directory, without a slash; `.` for the root. */
  readonly name: Buffer;
  /** A path by which this process can open the file while the entry is valid, with a NUL at the end. */
  readonly handle: Buffer;
  readonly status: FileStatus;
  /** Holds the file, as `holdBeneath` does. @returns a descriptor, for the caller to close */
  hold(): number;
  /** Makes the walk leave out what is below this directory. */
  skip(): void;
}

/**
 * The entries of a tree. An `undefined` stands for time that the walk has taken without reaching the next file. No
 * directory is opened before the first entry is requested.
 */
export type TreeWalk = Generator<TreeEntry | undefined, void, undefined>;

/** A directory between the root and the current entry. */
interface WalkedDirectory {
  /** How long its path is, with the slash behind it; 0 for the root. */
  readonly pathLength: number;
  /** What is left of its names, one character for each byte, with a slash behind those of directories. */
  readonly names: Iterator<string | undefined, void>;
}

/** More than the longest name that a filesystem allows, which is 1,024 bytes. */
const NAME_BYTES = 2048;

/** The entry of a walk. Handles and paths are rarely needed, so they are made on request. */
class CurrentEntry implements TreeEntry {
  readonly status = new FileStatus();
  /** Its name in its directory, with a NUL at the end; what is behind that is left over. */
  readonly #name = Buffer.allocUnsafe(NAME_BYTES);
  text = '/';
  depth = 0;
  skipped = false;
  #path: Buffer | undefined;
  #directory = -1;

  get path(): Buffer {
    return (this.#path ??= Buffer.from(this.text, 'latin1'));
  }

  get name(): Buffer {
    return Buffer.from(this.nameWithEnd.subarray(0, -1));
  }

  /** Its name with a NUL at the end, until the next entry. */
  get nameWithEnd(): Buffer {
    return this.#name.subarray(0, this.#name.indexOf(0) + 1);
  }

  get handle(): Buffer {
    return pathIn(this.#directory, this.nameWithEnd);
  }

  /** Makes this the root of the tree, which is open. */
  setTop(directory: number): void {
    this.#directory = directory;
    this.#name.write('.\0');
    this.status.readOpen(directory);
  }

  /**
   * Makes this a file in an open directory. The name of a directory has a slash at the end.
   *
   * @returns whether it exists
   */
  set(directory: number, path: string, name: string, depth: number): boolean {
    const length = this.#name.write(name, 'latin1');
    this.#name[name.endsWith('/') ? length - 1 : length] = 0;
    if (!this.status.read(directory, this.#name)) return false;
    this.#directory = directory;
    this.text = path + name;
    this.depth = depth;
    this.#path = undefined;
    this.skipped = false;
    return true;
  }

  hold(): number {
    return holdBeneath(this.#directory, this.#name);
  }

  skip(): void {
    this.skipped = true;
  }
}

/** A path for node:fs that leads to an open file. */
export function fdPath(fd: number): string {
  return `/proc/self/fd/${fd}`;
}

/** A path for node:fs that leads to a file in an open directory. */
export function pathIn(dir: number, name: Buffer): Buffer {
  return Buffer.concat([Buffer.from(`${fdPath(dir)}/`), name]);
}

/**
 * Walks a directory and everything below it, in the order of the raw bytes of the paths, each directory before its
 * contents. It follows no symbolic link, not even one that is put in its way meanwhile, and leaves out files that
 * vanish during the walk. However deep the tree is, only few directories are open at a time. It never enters a mount: if this process may do that, it sees the files below the mount,
 * otherwise it leaves them out.
 *
 * @throws a system error, like those of node:fs
 */
export function walkTree(root: string): TreeWalk {
  return walk(() => openTop(openDirectory(cString(root))));
}

/** Walks an open directory in the same way, and leaves it open. */
export function walkOpen(fd: number): TreeWalk {
  return walk(() => openTop(openDirectoryBeneath(fd, cString('.'))));
}

/**
 * Walks a directory below an open one in the same way, except that it leaves out what is mounted over; one from
 * `openWithoutMounts` has no mounts in it.
 */
export function walkBeneath(fd: number, path: string): TreeWalk {
  return walk(() => openDirectoryBeneath(fd, cString(path)));
}

function* walk(open: () => number): TreeWalk {
  using way = new Descent(open());
  const entry = new CurrentEntry();
  const { status } = entry;
  const directories: WalkedDirectory[] = [{ pathLength: 0, names: listNames(way.fd, status) }];
  // Only one path is kept, since the paths of all directories of a deep tree would take much memory.
  let path = '';
  entry.setTop(way.fd);
  yield entry;
  if (entry.skipped) return;
  for (let directory = directories.at(-1); directory !== undefined; directory = directories.at(-1)) {
    const { done, value: name } = directory.names.next();
    if (done === true) {
      closeSync(way.leave());
      directories.length = way.length;
      path = path.slice(0, directories.at(-1)?.pathLength ?? 0);
      yield undefined;
      continue;
    }
    if (name === undefined) {
      yield undefined;
      continue;
    }
    if (!entry.set(way.fd, path, name, directories.length)) continue;
    yield entry;
    if (!name.endsWith('/') || entry.skipped) continue;
    const fd = enter(way.fd, entry.nameWithEnd);
    if (fd === undefined) continue;
    way.enter(fd, entry.name);
    path = entry.text;
    directories.push({ pathLength: path.length, names: listNames(fd, status) });
  }
}

/** Opens the root of a walk without the mounts in it, if this process may do that. It takes over the descriptor. */
function openTop(fd: number): number {
  const withoutMounts = openWithoutMounts(fd);
  if (withoutMounts === undefined) return fd;
  try {
    return openDirectoryBeneath(withoutMounts, cString('.'));
  } finally {
    closeSync(withoutMounts);
    closeSync(fd);
  }
}

/** The sorted names in a directory. Those of directories have a slash at the end, which is part of the order. */
function listNames(fd: number, status: FileStatus): Iterator<string | undefined, void> {
  const batches = readBatches(fd);
  const first = batches.next();
  if (first.done === true) return ([] as string[]).values() as Iterator<string, void>;
  const names = sortNames(fd, first.value, status);
  const second = batches.next();
  if (second.done === true) return names.values() as Iterator<string, void>;
  return listMore(fd, status, [names, sortNames(fd, second.value, status)], batches);
}

/** The sorted names in a directory that takes several batches to read, the first of which are given. */
function* listMore(
  fd: number,
  status: FileStatus,
  lists: string[][],
  batches: Iterable<DirectoryEntry[]>,
): Generator<string | undefined, void, undefined> {
  for (const batch of batches) {
    yield undefined;
    lists.push(sortNames(fd, batch, status));
  }
  const names = mergeSorted(lists);
  for (let next = names.next(); next.done !== true; next = names.next()) yield next.value;
}

function sortNames(fd: number, batch: readonly DirectoryEntry[], status: FileStatus): string[] {
  const names = batch.map((entry) => {
    const directory = entry.hasType
      ? entry.isDirectory()
      : status.read(fd, cString(entry.name)) && isDirectory(status.mode);
    return directory ? `${entry.text}/` : entry.text;
  });
  // The values of the characters are those of the bytes.
  return names.toSorted((a, b) => (a < b ? -1 : 1));
}

/** Opens a directory of the walk, unless it is gone or is a mount. */
function enter(parent: number, name: Buffer): number | undefined {
  try {
    return openDirectoryBeneath(parent, name);
  } catch (error) {
    if (isGone(error) || errnoOf(error) === 'EXDEV') return undefined;
    throw error;
  }
}
