import { closeSync } from 'node:fs';
import { errnoOf, isGone } from './errno.ts';
import { cString } from './foreign.ts';
import { openBelowMounts, openDirectory, openDirectoryBeneath } from './file-calls.ts';
import { type DirectoryEntry, mergeSorted, readBatches } from './directory-entries.ts';
import { FileStatus, isDirectory } from './status.ts';

/** One file of a tree. The objects are filled in anew for each, so keep nothing of them. */
export interface TreeEntry {
  /** The path below the tree's root in raw bytes, with a slash behind a directory; the root's own is `/`. */
  readonly path: Buffer;
  /** The same, a character for each byte. */
  readonly text: string;
  /** The path to look the file up by, ended with NUL: it holds as long as the entry is the current one. */
  readonly handle: Buffer;
  readonly status: FileStatus;
  /** Has the walk leave out what is below it, if it is a directory. */
  skip(): void;
}

/** What a walk goes through. Nothing is opened before it is asked for the first. */
export type TreeWalk = Generator<TreeEntry | undefined, void, undefined>;

/** A directory on the way. Paths and names are bytes, a character each, with a slash behind those of directories. */
interface Level {
  readonly fd: number;
  readonly path: string;
  readonly names: Iterator<string | undefined, void>;
}

/** More than any name takes that a filesystem allows, 1024 bytes and its end. */
const NAME_BYTES = 2048;

/** The entry that a walk fills in anew for each file. Few ask for a handle or a path, so they are made when wanted. */
class CurrentEntry implements TreeEntry {
  readonly status = new FileStatus();
  /** Its name in its directory, ended with NUL; what is behind that is left from others. */
  readonly name = Buffer.allocUnsafe(NAME_BYTES);
  text = '/';
  skipped = false;
  #path: Buffer | undefined;
  #directory = -1;

  get path(): Buffer {
    return (this.#path ??= Buffer.from(this.text, 'latin1'));
  }

  get handle(): Buffer {
    return pathIn(this.#directory, this.name.subarray(0, this.name.indexOf(0) + 1));
  }

  /** Makes it the directory that is open. */
  setTop(directory: number): void {
    this.#directory = directory;
    this.name.write('.\0');
    this.status.readOpen(directory);
  }

  /** Makes it a file in an open directory, with a slash behind its name if it is one itself. Whether it is there. */
  set(directory: number, path: string, name: string): boolean {
    const length = this.name.write(name, 'latin1');
    this.name[name.endsWith('/') ? length - 1 : length] = 0;
    if (!this.status.read(directory, this.name)) return false;
    this.#directory = directory;
    this.text = path + name;
    this.#path = undefined;
    this.skipped = false;
    return true;
  }

  skip(): void {
    this.skipped = true;
  }
}

/** The file behind a descriptor, as a path for node:fs. */
export function fdPath(fd: number): string {
  return `/proc/self/fd/${fd}`;
}

/** A file in a directory that is open, as a path for node:fs. */
export function pathIn(dir: number, name: Buffer): Buffer {
  return Buffer.concat([Buffer.from(`${fdPath(dir)}/`), name]);
}

/**
 * Walks a directory and all below it, each directory before what it holds, in the order of the raw bytes of the
 * paths. It never follows a symbolic link, even one that is put in its way meanwhile. Where it may, it sees what is
 * below mounts on anything in the directory; where it may not, it leaves out what is mounted there. What vanishes
 * during the walk is left out. Where it takes time over something else than a file, there is an `undefined`.
 *
 * @throws what the operating system says, as node:fs does
 */
export function walkTree(root: string): TreeWalk {
  return walk(() => openTop(openDirectory(cString(root))));
}

/** Walks, in the same way, a directory that is open, and stays so. */
export function walkOpen(fd: number): TreeWalk {
  return walk(() => openTop(openDirectoryBeneath(fd, cString('.'))));
}

/** Walks, in the same way, a directory below one that `openBelowMounts` gave, where no mount can be in the way. */
export function walkBeneath(fd: number, path: string): TreeWalk {
  return walk(() => openDirectoryBeneath(fd, cString(path)));
}

function* walk(open: () => number): TreeWalk {
  const entry = new CurrentEntry();
  const { status } = entry;
  const levels: Level[] = [];
  try {
    const top = open();
    levels.push({ fd: top, path: '', names: list(top, status) });
    entry.setTop(top);
    yield entry;
    if (entry.skipped) return;
    for (let level = levels.at(-1); level !== undefined; level = levels.at(-1)) {
      const { done, value: name } = level.names.next();
      if (done === true) {
        closeSync(level.fd);
        levels.pop();
        continue;
      }
      if (name === undefined) {
        yield undefined;
        continue;
      }
      if (!entry.set(level.fd, level.path, name)) continue;
      yield entry;
      if (name.endsWith('/') && !entry.skipped) {
        const fd = enter(level.fd, entry.name);
        if (fd !== undefined) levels.push({ fd, path: entry.text, names: list(fd, status) });
      }
    }
  } finally {
    for (const { fd } of levels) closeSync(fd);
  }
}

/** Opens a directory below what is mounted on anything in it, where it may, in the place of the one given. */
function openTop(plain: number): number {
  const below = openBelowMounts(plain);
  if (below === undefined) return plain;
  try {
    return openDirectoryBeneath(below, cString('.'));
  } finally {
    closeSync(below);
    closeSync(plain);
  }
}

/** The names in a directory in their order, with a slash behind those of directories, which belongs to the order. */
function list(fd: number, status: FileStatus): Iterator<string | undefined, void> {
  const batches = readBatches(fd);
  const first = batches.next();
  if (first.done === true) return ([] as string[]).values() as Iterator<string, void>;
  const names = sortNames(fd, first.value, status);
  const second = batches.next();
  if (second.done === true) return names.values() as Iterator<string, void>;
  return listMore(fd, status, [names, sortNames(fd, second.value, status)], batches);
}

/** Goes on with a directory that is read in several parts. */
function* listMore(
  fd: number,
  status: FileStatus,
  parts: string[][],
  batches: Iterable<DirectoryEntry[]>,
): Generator<string | undefined, void, undefined> {
  for (const batch of batches) {
    yield undefined;
    parts.push(sortNames(fd, batch, status));
  }
  const names = mergeSorted(parts);
  for (let next = names.next(); next.done !== true; next = names.next()) yield next.value;
}

function sortNames(fd: number, batch: readonly DirectoryEntry[], status: FileStatus): string[] {
  const names = batch.map((entry) => {
    const directory = entry.known
      ? entry.isDirectory()
      : status.read(fd, cString(entry.name)) && isDirectory(status.mode);
    return directory ? `${entry.text}/` : entry.text;
  });
  // By the values of the characters, which are the bytes.
  return names.toSorted((a, b) => (a < b ? -1 : 1));
}

/** Opens a directory to go on below it, unless it has vanished, has become something else, or is a mount. */
function enter(parent: number, name: Buffer): number | undefined {
  try {
    return openDirectoryBeneath(parent, name);
  } catch (error) {
    if (isGone(error) || errnoOf(error) === 'EXDEV') return undefined;
    throw error;
  }
}
