import { type Hash, createHash } from 'node:crypto';
import { closeSync, constants, readSync } from 'node:fs';
import { cString } from '../linux/foreign.ts';
import { read } from '../linux/fs-promises.ts';
import { linkTarget } from '../linux/link-target.ts';
import { openRegular, shrunk } from '../linux/regular-file.ts';
import { FileStatus, isDirectory, isRegular } from '../linux/file-status.ts';
import type { TreeEntry } from '../linux/tree-walk.ts';
import { readXattrs } from '../linux/xattrs.ts';
import { BufferedHash } from './buffered-hash.ts';

/** Whether an extended attribute is one of those of overlayfs that change what a file of a layer shows in a tree. */
function changesTree(name: string): boolean {
  return /^(?:trusted|user)\.overlay\.(?:opaque|redirect|metacopy|whiteout)$/.test(name);
}

/** Whether it is one of those by which a directory hides or renames lower ones. */
export function isOpaqueOrRedirect(name: string): boolean {
  return /^(?:trusted|user)\.overlay\.(?:opaque|redirect)$/.test(name);
}

/** A digest over fields. Each has its length before it, so that no two series of fields have the same bytes. */
class Fields {
  readonly #hash = new BufferedHash('sha256');

  add(bytes: Buffer): void {
    this.#hash.addText(`${bytes.length}:`);
    this.#hash.add(bytes);
  }

  /** Adds text that has one character for each byte. */
  addText(text: string): void {
    this.#hash.addText(`${text.length}:${text}`);
  }

  /** Adds two such texts. */
  addTexts(first: string, second: string): void {
    this.#hash.addText(`${first.length}:${first}${second.length}:${second}`);
  }

  digest(): string {
    return this.#hash.digest();
  }
}

/**
 * Digests the metadata of a layer, version 1. The files are in the order of the raw bytes of their paths, where that
 * of a directory has a slash at the end. Of each file it covers the path; type and mode, owner and group; the size,
 * except of directories; the time of modification in nanoseconds; the numbers of a device node; the target of a
 * symbolic link; and the overlay attributes of `changesTree`.
 */
export class MetadataDigest {
  readonly #fields = new Fields();

  add(entry: TreeEntry): void {
    const { text, status } = entry;
    const { mode } = status;
    const type = mode & constants.S_IFMT;
    const isDevice = type === constants.S_IFCHR || type === constants.S_IFBLK;
    const size = type === constants.S_IFDIR ? '' : status.size;
    const device = isDevice ? `${status.device.major}:${status.device.minor}` : '';
    const { uid, gid, modified } = status;
    this.#fields.addTexts(text, `${mode.toString(8)} ${uid} ${gid} ${size} ${modified} ${device}`);
    if (type === constants.S_IFLNK) {
      this.#fields.add(linkTarget(entry.handle.subarray(0, -1)));
    }
    // Files have them only if their data is in another layer, or if they are whiteouts, and then no data of their own.
    if (isDirectory(mode) || (isRegular(mode) && (status.size === 0 || status.blocks * 512 < status.size))) {
      for (const [name, value] of readXattrs(entry.handle, { only: changesTree })) {
        this.#fields.add(cString(name));
        this.#fields.add(value);
      }
    }
  }

  digest(): string {
    return `metadata1:${this.#fields.digest()}`;
  }
}

/**
 * Digests the contents of a layer, version 1. The files are in the same order as in `MetadataDigest`. Of each it
 * covers the path; the number of its extended attributes, and the name and value of each, in the order of the names;
 * and the SHA-256 of the contents of a regular file.
 */
export class ContentDigest {
  readonly #fields = new Fields();
  readonly #reader = new Reader();

  /**
   * Adds a file. A large one is read on another thread, and `onBytes` is called after each part with the bytes that
   * were read so far.
   *
   * @returns a promise for a large file, and `undefined` for others, which are added when it returns
   */
  add(entry: TreeEntry, onBytes: (bytes: number) => void): Promise<void> | undefined {
    if (!isRegular(entry.status.mode) || entry.status.size <= SMALL_BYTES) {
      this.addNow(entry);
      return undefined;
    }
    this.#addAttributes(entry);
    return this.#reader.digest(entry, onBytes).then((contents) => this.#fields.add(contents));
  }

  /** Adds a file of any size on this thread. */
  addNow(entry: TreeEntry): void {
    this.#addAttributes(entry);
    if (isRegular(entry.status.mode)) this.#fields.add(this.#reader.digestNow(entry));
  }

  digest(): string {
    return `content1:${this.#fields.digest()}`;
  }

  #addAttributes({ path, handle }: TreeEntry): void {
    const attributes = readXattrs(handle);
    this.#fields.add(path);
    this.#fields.addText(String(attributes.length));
    for (const [name, value] of attributes) {
      this.#fields.add(Buffer.from(name, 'latin1'));
      this.#fields.add(value);
    }
  }
}

/** How many bytes are read at a time. */
const CHUNK_BYTES = 1024 * 1024;

/** Files of up to this size are read on the thread of the event loop. */
const SMALL_BYTES = 128 * 1024;

/** Digests the contents of files of any size with one buffer. */
class Reader {
  readonly #buffer = Buffer.alloc(CHUNK_BYTES);
  readonly #status = new FileStatus();

  /** @throws {SnapshotError} FAILED_PRECONDITION if the file becomes shorter meanwhile */
  async digest(entry: TreeEntry, onBytes: (bytes: number) => void): Promise<Buffer> {
    const { fd, size, hash } = this.#begin(entry);
    try {
      let total = 0;
      for (;;) {
        const { bytesRead } = await read(fd, this.#buffer, 0, CHUNK_BYTES, null);
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

  /** @throws {SnapshotError} FAILED_PRECONDITION if the file becomes shorter meanwhile */
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

  #begin(entry: TreeEntry): { fd: number; size: number; hash: Hash } {
    const fd = openRegular(entry, this.#status);
    return { fd, size: this.#status.size, hash: createHash('sha256') };
  }
}
