import { type Hash, createHash } from 'node:crypto';
import { closeSync, constants, readSync, readlinkSync } from 'node:fs';
import { cString } from '../linux/foreign.ts';
import { read } from '../linux/fs-promises.ts';
import { openRegular, shrunk } from '../linux/regular-file.ts';
import { FileStatus, isDirectory, isRegular } from '../linux/status.ts';
import type { TreeEntry } from '../linux/tree.ts';
import { readXattrs } from '../linux/xattrs.ts';
import { BufferedHash } from './buffered-hash.ts';

/** Whether an extended attribute is one of those of overlayfs by which a directory hides or renames lower ones. */
export function isOpaqueOrRedirect(name: string): boolean {
  return /^(?:trusted|user)\.overlay\.(?:opaque|redirect)$/.test(name);
}

/** A digest over fields, each with its length before it, so that no two series of fields look the same. */
class Fields {
  readonly #hash = new BufferedHash('sha256');

  add(bytes: Buffer): void {
    this.#hash.addText(`${bytes.length}:`);
    this.#hash.add(bytes);
  }

  /** Adds bytes that are given as a character each. */
  addText(text: string): void {
    this.#hash.addText(`${text.length}:${text}`);
  }

  /** Adds two fields of such bytes. */
  addTexts(first: string, second: string): void {
    this.#hash.addText(`${first.length}:${first}${second.length}:${second}`);
  }

  get value(): string {
    return this.#hash.value;
  }
}

/**
 * Digests the metadata of a layer, version 1. For each file, in the order of the raw bytes of the paths, a
 * directory's with a slash behind it: the path; type and mode, owner, group; the size, except of directories; the
 * time of modification in nanoseconds; the numbers of a device node; the target of a symbolic link; and the
 * overlay's own attributes.
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
      this.#fields.add(readlinkSync(entry.handle.subarray(0, -1), 'buffer'));
    }
    // On files, the overlay keeps them only together with data that is elsewhere.
    if (isDirectory(mode) || (isRegular(mode) && status.blocks === 0 && status.size > 0)) {
      for (const [name, value] of readXattrs(entry.handle, { only: isOpaqueOrRedirect })) {
        this.#fields.add(cString(name));
        this.#fields.add(value);
      }
    }
  }

  get value(): string {
    return `metadata1:${this.#fields.value}`;
  }
}

/**
 * Digests what the files of a layer hold, version 1. For each file, in the same order: the path; how many extended
 * attributes it has, and by name each attribute's name and value; and the SHA-256 of a regular file's contents.
 */
export class ContentDigest {
  readonly #fields = new Fields();
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
    return this.#reader.digest(entry, onBytes).then((contents) => this.#fields.add(contents));
  }

  addNow(entry: TreeEntry): void {
    this.#addAttributes(entry);
    if (isRegular(entry.status.mode)) this.#fields.add(this.#reader.digestNow(entry));
  }

  get value(): string {
    return `content1:${this.#fields.value}`;
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
