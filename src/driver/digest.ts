import { type Hash, createHash } from 'node:crypto';
import { closeSync, constants, openSync, read, readSync, readlinkSync } from 'node:fs';
import { promisify } from 'node:util';
import { SnapshotError } from '../errors.ts';
import { cString } from '../linux/foreign.ts';
import { listXattrs, readXattr } from '../linux/file-calls.ts';
import { FileStatus, isDirectory, isRegular } from '../linux/status.ts';
import type { TreeEntry } from '../linux/tree.ts';
import { quote } from '../names.ts';

const readOf = promisify(read);

/** The overlay attributes that change what a layer means. */
const OVERLAY_XATTRS = new Set(
  ['trusted', 'user'].flatMap((space) => [`${space}.overlay.opaque`, `${space}.overlay.redirect`]),
);

/** Adds fields to a digest, each with its length before it, so that no two series of fields look the same. */
function addField(hash: Hash, bytes: Buffer): void {
  hash.update(`${bytes.length}:`);
  hash.update(bytes);
}

/**
 * Digests the metadata of a layer, version 1. For each file, in the order of the raw bytes of the paths, a
 * directory's with a slash behind it: the path; type and mode, owner, group; the size, except of directories; the
 * time of modification in nanoseconds; the numbers of a device node; the target of a symbolic link; and the
 * overlay's own attributes.
 */
export class MetadataDigest {
  readonly #hash = createHash('sha256');

  add({ path, handle, status }: TreeEntry): void {
    const { mode } = status;
    const type = mode & constants.S_IFMT;
    const isDevice = type === constants.S_IFCHR || type === constants.S_IFBLK;
    const { major, minor } = status.device;
    const numbers = [
      mode.toString(8),
      status.uid,
      status.gid,
      type === constants.S_IFDIR ? '' : status.size,
      status.modified,
      isDevice ? `${major}:${minor}` : '',
    ];
    addField(this.#hash, path);
    addField(this.#hash, Buffer.from(numbers.join(' ')));
    if (type === constants.S_IFLNK) addField(this.#hash, readlinkSync(handle.subarray(0, -1), 'buffer'));
    // On files, the overlay keeps them only together with data that is elsewhere.
    if (isDirectory(mode) || (isRegular(mode) && status.blocks === 0 && status.size > 0)) {
      for (const name of listXattrs(handle)
        .filter((listed) => OVERLAY_XATTRS.has(listed))
        .toSorted()) {
        addField(this.#hash, cString(name));
        addField(this.#hash, readXattr(handle, name));
      }
    }
  }

  get value(): string {
    return `metadata1:${this.#hash.digest('hex')}`;
  }
}

/**
 * Digests what the files of a layer hold, version 1. For each file, in the same order: the path; how many extended
 * attributes it has, and by name each attribute's name and value; and the SHA-256 of a regular file's contents.
 */
export class ContentDigest {
  readonly #hash = createHash('sha256');
  readonly #reader = new Reader();

  /**
   * Large files are read off the event loop's thread: then there is something to wait for. `onBytes` is told after
   * each part of one how much of it was read.
   */
  add(entry: TreeEntry, onBytes: (bytes: number) => void): Promise<void> | undefined {
    if (!isRegular(entry.status.mode) || entry.status.size <= SMALL_BYTES) {
      this.addNow(entry);
      return undefined;
    }
    this.#addAttributes(entry);
    return this.#reader.digest(entry, onBytes).then((contents) => addField(this.#hash, contents));
  }

  addNow(entry: TreeEntry): void {
    this.#addAttributes(entry);
    if (isRegular(entry.status.mode)) addField(this.#hash, this.#reader.digestNow(entry));
  }

  get value(): string {
    return `content1:${this.#hash.digest('hex')}`;
  }

  #addAttributes({ path, handle }: TreeEntry): void {
    const names = listXattrs(handle).toSorted();
    addField(this.#hash, path);
    addField(this.#hash, Buffer.from(String(names.length)));
    for (const name of names) {
      addField(this.#hash, Buffer.from(name, 'latin1'));
      addField(this.#hash, readXattr(handle, name));
    }
  }
}

/** How many bytes are read at a time, and up to how many on the event loop's own thread. */
const CHUNK_BYTES = 1024 * 1024;
const SMALL_BYTES = 128 * 1024;

/** Digests the contents of files through one buffer, whatever their size. */
class Reader {
  readonly #buffer = Buffer.alloc(CHUNK_BYTES);
  readonly #status = new FileStatus();

  /** @throws {SnapshotError} FAILED_PRECONDITION if the file shrinks meanwhile */
  async digest(entry: TreeEntry, onBytes: (bytes: number) => void): Promise<Buffer> {
    const { fd, size, hash } = this.#begin(entry);
    try {
      let total = 0;
      for (;;) {
        const { bytesRead } = await readOf(fd, this.#buffer, 0, CHUNK_BYTES, null);
        if (bytesRead === 0) break;
        hash.update(this.#buffer.subarray(0, bytesRead));
        total += bytesRead;
        onBytes(total);
      }
      if (total < size) throw shrunk(entry.path);
      return hash.digest();
    } finally {
      closeSync(fd);
    }
  }

  /** @throws {SnapshotError} FAILED_PRECONDITION if the file shrinks meanwhile */
  digestNow(entry: TreeEntry): Buffer {
    const { fd, size, hash } = this.#begin(entry);
    try {
      let total = 0;
      for (let bytes = readSync(fd, this.#buffer); bytes > 0; bytes = readSync(fd, this.#buffer)) {
        hash.update(this.#buffer.subarray(0, bytes));
        total += bytes;
      }
      if (total < size) throw shrunk(entry.path);
      return hash.digest();
    } finally {
      closeSync(fd);
    }
  }

  #begin({ handle }: TreeEntry): { fd: number; size: number; hash: Hash } {
    const fd = openRegular(handle.subarray(0, -1));
    this.#status.readOpen(fd);
    return { fd, size: this.#status.size, hash: createHash('sha256') };
  }
}

/** Opens a file that was regular when it was looked at; what has taken its place since does no harm. */
export function openRegular(file: Buffer): number {
  return openSync(
    file,
    constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK | constants.O_NOCTTY,
  );
}

/** The error for a file that got shorter than it was when reading it began. */
export function shrunk(path: Buffer): SnapshotError {
  return new SnapshotError(
    'FAILED_PRECONDITION',
    `the file ${quote(path.toString())} became shorter while it was read`,
    { hint: 'let what writes to it come to rest, and try again' },
  );
}
