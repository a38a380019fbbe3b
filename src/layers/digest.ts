import { createHash } from 'node:crypto';
import { closeSync, constants, readSync } from 'node:fs';
import { cString } from '../linux/foreign.ts';
import { read } from '../linux/fs-promises.ts';
import { linkTarget } from '../linux/link-target.ts';
import { openRegular, shrunk } from '../linux/regular-file.ts';
import { FileStatus, isDirectory, isRegular } from '../linux/file-status.ts';
import type { TreeEntry } from '../linux/tree-walk.ts';
import { type Stretch, stretchesOf } from '../linux/stretches.ts';
import { readXattrs } from '../linux/xattrs.ts';
import { BLOCK_BYTES, BlockHash } from './block-hash.ts';
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

/** The versions of the digest over contents. Seals of older stores have the first. */
export type ContentVersion = 1 | 2;

/** The version that new seals have. */
const NEWEST_VERSION: ContentVersion = 2;

/**
 * Digests the contents of a layer. The files are in the same order as in `MetadataDigest`. Of each it covers the path;
 * the number of its extended attributes, and the name and value of each, in the order of the names; and the contents of
 * a regular file. In version 1 these are their SHA-256. In version 2 they are what `BlockHash` makes of them, so that
 * holes need not be read.
 */
export class ContentDigest {
  readonly #version: ContentVersion;
  readonly #fields = new Fields();
  readonly #reader: Reader;

  constructor(version: ContentVersion = NEWEST_VERSION) {
    this.#version = version;
    this.#reader = new Reader(version);
  }

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
    return this.#reader.digest(entry, onBytes).then((contents) => this.#addContents(contents));
  }

  /** Adds a file of any size on this thread. */
  addNow(entry: TreeEntry): void {
    this.#addAttributes(entry);
    if (isRegular(entry.status.mode)) this.#addContents(this.#reader.digestNow(entry));
  }

  digest(): string {
    return `content${this.#version}:${this.#fields.digest()}`;
  }

  #addContents(contents: readonly Buffer[]): void {
    for (const part of contents) this.#fields.add(part);
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

/** A hash over the contents of a file, version 1. */
class WholeHash {
  readonly #hash = createHash('sha256');

  add(bytes: Buffer): void {
    this.#hash.update(bytes);
  }

  digest(): [Buffer] {
    return [this.#hash.digest()];
  }
}

/** A file whose contents are being digested. */
interface DigestedFile {
  readonly fd: number;
  readonly size: number;
  readonly hash: WholeHash | BlockHash;
  /** What of it is read. */
  readonly stretches: Iterable<Stretch>;
}

/** Digests the contents of files of any size with one buffer. */
class Reader {
  readonly #version: ContentVersion;
  readonly #buffer = Buffer.alloc(CHUNK_BYTES);
  readonly #status = new FileStatus();

  constructor(version: ContentVersion) {
    this.#version = version;
  }

  /** @throws {SnapshotError} FAILED_PRECONDITION if the file becomes shorter meanwhile */
  async digest(entry: TreeEntry, onBytes: (bytes: number) => void): Promise<Buffer[]> {
    const file = this.#begin(entry);
    try {
      let total = 0;
      for (const { from, to } of file.stretches) {
        for (let at = from; at < to;) {
          const { bytesRead } = await read(file.fd, this.#buffer, 0, Math.min(CHUNK_BYTES, to - at), at);
          if (bytesRead === 0) break;
          file.hash.add(this.#buffer.subarray(0, bytesRead), at);
          at += bytesRead;
          total += bytesRead;
          onBytes(total);
        }
      }
      return this.#end(entry, file);
    } finally {
      closeSync(file.fd);
    }
  }

  /** @throws {SnapshotError} FAILED_PRECONDITION if the file becomes shorter meanwhile */
  digestNow(entry: TreeEntry): Buffer[] {
    const file = this.#begin(entry);
    try {
      for (const { from, to } of file.stretches) {
        for (let at = from; at < to;) {
          const bytes = readSync(file.fd, this.#buffer, 0, Math.min(CHUNK_BYTES, to - at), at);
          if (bytes === 0) break;
          file.hash.add(this.#buffer.subarray(0, bytes), at);
          at += bytes;
        }
      }
      return this.#end(entry, file);
    } finally {
      closeSync(file.fd);
    }
  }

  #begin(entry: TreeEntry): DigestedFile {
    const fd = openRegular(entry, this.#status);
    const { size, blocks } = this.#status;
    if (this.#version === 1) return { fd, size, hash: new WholeHash(), stretches: WHOLE };
    // Without holes a file takes at least as much space as it has bytes, except on filesystems that compress.
    const stretches = blocks * 512 < size ? wholeBlocks(stretchesOf(fd, size)) : WHOLE;
    return { fd, size, hash: new BlockHash(), stretches };
  }

  #end(entry: TreeEntry, { fd, size, hash }: DigestedFile): Buffer[] {
    this.#status.readOpen(fd);
    if (this.#status.size < size) throw shrunk(entry.path);
    return hash.digest(this.#status.size);
  }
}

/** All of a file, up to where it ends. */
const WHOLE: readonly Stretch[] = [{ from: 0, to: Infinity }];

/** The whole blocks in which there is something of a stretch. */
function* wholeBlocks(stretches: Iterable<Stretch>): Generator<Stretch, void, undefined> {
  let end = 0;
  for (const stretch of stretches) {
    const from = Math.max(end, stretch.from - (stretch.from % BLOCK_BYTES));
    end = Math.ceil(stretch.to / BLOCK_BYTES) * BLOCK_BYTES;
    if (from < end) yield { from, to: end };
  }
}
