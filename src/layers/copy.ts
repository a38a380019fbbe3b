import {
  chmodSync,
  closeSync,
  constants,
  ftruncateSync,
  lchownSync,
  linkSync,
  mkdirSync,
  openSync,
  symlinkSync,
} from 'node:fs';
import { unlessGone } from '../linux/errno.ts';
import { cString } from '../linux/foreign.ts';
import {
  MAX_PATH,
  cloneFile,
  copyRange,
  createDirectory,
  makeNode,
  nextData,
  nextHole,
  openDirectoryBeneath,
  setTimes,
} from '../linux/file-calls.ts';
import { linkTarget } from '../linux/link-target.ts';
import { openRegularOrNew, shrunk } from '../linux/regular-file.ts';
import { type SliceOptions, inSlices } from '../linux/slices.ts';
import { FileStatus, isDirectory, isRegular } from '../linux/file-status.ts';
import { type TreeEntry, type TreeWalk, fdPath, pathIn } from '../linux/tree-walk.ts';
import { readXattrs, setXattr } from '../linux/xattrs.ts';
import { Meter } from './usage.ts';

/** How many bytes of a file are copied at a time: in between, the copy can be cancelled. */
const CHUNK_BYTES = 16 * 1024 * 1024;

/** How often a file is copied that changes meanwhile, before its copy is accepted as it is. */
const ATTEMPTS = 5;

/** How a layer is copied. */
export interface CopyOptions extends SliceOptions {
  /** Counts each file once it was copied. */
  readonly meter?: Meter;
}

/**
 * Copies a layer to a new directory `fs` in an open one. The copy is exact: data with its holes, in shared blocks where the
 * filesystem can do that; hard links between the files; owners, modes, and times to the nanosecond; extended
 * attributes, and with them access control lists and those of overlayfs; symbolic links, fifos, sockets and device
 * nodes, and with them whiteouts. The copy is not made durable.
 *
 * Each file is copied as it was at one moment, unless it is written to all the time; then its copy is at least as long
 * as it was. Files that appear or vanish meanwhile may be in the copy or not.
 *
 * @throws {SnapshotError} FAILED_PRECONDITION if a file keeps getting shorter while it is read
 * @throws a system error, like those of node:fs
 */
export async function copyLayer(
  source: TreeWalk,
  target: number,
  { meter = new Meter(), signal, onSlice }: CopyOptions = {},
): Promise<void> {
  const copier = new Copier(target, (bytes) => {
    meter.advance(bytes);
    signal?.throwIfAborted();
    onSlice?.();
  });
  const visit = async (entry: TreeEntry): Promise<void> => {
    await copier.add(entry);
    meter.add(entry);
  };
  try {
    await inSlices(source, visit, { signal, onSlice });
    copier.finish();
  } finally {
    copier.close();
  }
}

/** A directory of the copy that is being filled. */
interface FilledDirectory {
  readonly fd: number;
  /** Its path below the source, one character for each byte, with a slash behind it; empty for the root. */
  readonly path: string;
  /** Applied once it is full, since filling it changes its times. */
  readonly attributes: Attributes;
}

class Copier {
  /** The directory that the copy is made in. */
  readonly #target: number;
  readonly #onBytes: (bytes: number) => void;
  readonly #stack: FilledDirectory[] = [];
  /** The first path of each file with several links, by inode number. */
  readonly #linked = new Map<bigint, Buffer>();
  readonly #status = new FileStatus();
  #clones = true;

  /** Calls `onBytes` after each part of a large file with the bytes of it that were copied. */
  constructor(target: number, onBytes: (bytes: number) => void) {
    this.#target = target;
    this.#onBytes = onBytes;
  }

  async add(entry: TreeEntry): Promise<void> {
    if (this.#stack.length === 0) this.#begin(entry);
    else await this.#copy(entry);
  }

  finish(): void {
    while (this.#stack.length > 0) this.#leave();
  }

  close(): void {
    for (const { fd } of this.#stack.splice(0)) closeSync(fd);
  }

  #begin(entry: TreeEntry): void {
    const attributes = new Attributes(entry);
    const name = cString('fs');
    createDirectory(this.#target, name, 0o700);
    this.#stack.push({ fd: openDirectoryBeneath(this.#target, name), path: '', attributes });
  }

  async #copy(entry: TreeEntry): Promise<void> {
    const { text: path, status } = entry;
    while (!path.startsWith(this.#stack.at(-1)?.path ?? '')) this.#leave();
    const above = this.#stack.at(-1);
    if (above === undefined) throw new Error(`nothing is above ${path}`);
    const directory = isDirectory(status.mode);
    const name = Buffer.from(path.slice(above.path.length, directory ? -1 : undefined), 'latin1');
    const copy = pathIn(above.fd, name);
    if (directory) {
      const attributes = unlessGone(() => new Attributes(entry));
      if (attributes === undefined) return;
      mkdirSync(copy, 0o700);
      const fd = openDirectoryBeneath(above.fd, cString(name));
      this.#stack.push({ fd, path, attributes });
      return;
    }
    const { inode, links } = status;
    const first = links > 1 ? this.#linked.get(inode) : undefined;
    if (first !== undefined) {
      this.#link(first, copy);
      return;
    }
    const copied = isRegular(status.mode)
      ? await this.#copyFile(entry, copy)
      : this.#copySpecial(entry, copy);
    if (copied && links > 1) this.#linked.set(inode, entry.path);
  }

  /** Copies a file that is neither a directory nor a regular file. @returns whether it still existed */
  #copySpecial(entry: TreeEntry, copy: Buffer): boolean {
    const { handle, status } = entry;
    const type = status.mode & constants.S_IFMT;
    const found = unlessGone(() => ({
      attributes: new Attributes(entry),
      link: type === constants.S_IFLNK ? linkTarget(handle.subarray(0, -1)) : undefined,
    }));
    if (found === undefined) return false;
    if (found.link === undefined) makeNode(cString(copy), type, status.device);
    else symlinkSync(found.link, copy);
    found.attributes.applyTo(copy);
    return true;
  }

  /** Finishes the directory that is being filled. */
  #leave(): void {
    const directory = this.#stack.pop();
    if (directory === undefined) return;
    try {
      directory.attributes.applyTo(Buffer.from(`${fdPath(directory.fd)}/.`));
    } finally {
      closeSync(directory.fd);
    }
  }

  /** Copies a regular file, or the one that has replaced it. @returns whether it was still there itself */
  async #copyFile(entry: TreeEntry, copy: Buffer): Promise<boolean> {
    const from = unlessGone(() => openRegularOrNew(entry, this.#status));
    if (from === undefined) return false;
    try {
      const to = openSync(copy, NEW_FILE, 0o600);
      try {
        (await this.#copyData(from, to, entry.path)).applyTo(copy);
      } finally {
        closeSync(to);
      }
      return this.#status.isSameAs(entry.status);
    } finally {
      closeSync(from);
    }
  }

  /** Copies the data of a file, again if it changes meanwhile. @returns the attributes that it had with this data */
  async #copyData(from: number, to: number, path: Buffer): Promise<Attributes> {
    const source = { handle: cString(fdPath(from)), status: this.#status };
    for (let attempt = 1; ; attempt += 1) {
      this.#status.readOpen(from);
      const { version, size } = this.#status;
      const attributes = new Attributes(source, { follow: true });
      const whole = await this.#copyOnce(from, to, size);
      this.#status.readOpen(from);
      if (whole && version.equals(this.#status.version)) return attributes;
      if (attempt === ATTEMPTS || size > CHUNK_BYTES) {
        if (!whole) throw shrunk(path);
        return attributes;
      }
      ftruncateSync(to, 0);
    }
  }

  /** @returns whether the file still had all of its `size` bytes */
  async #copyOnce(from: number, to: number, size: number): Promise<boolean> {
    if (size === 0) return true;
    if (this.#clones) {
      if (await cloneFile(from, to)) return true;
      this.#clones = false;
    }
    let end = 0;
    for (let data = nextData(from, 0); data !== undefined && data < size; data = nextData(from, end)) {
      end = Math.min(nextHole(from, data), size);
      for (let offset = data; offset < end;) {
        const bytes = await copyRange(from, to, offset, Math.min(end - offset, CHUNK_BYTES));
        if (bytes === 0) return false;
        offset += bytes;
        if (size > CHUNK_BYTES) this.#onBytes(offset);
      }
    }
    this.#status.readOpen(from);
    ftruncateSync(to, size);
    return this.#status.size >= size;
  }

  /** Makes a hard link to a file that was copied before. The path to that may be longer than the kernel takes. */
  #link(first: Buffer, copy: Buffer): void {
    const root = this.#stack[0];
    if (root === undefined) return;
    let dir = root.fd;
    let path = first;
    try {
      while (path.length > MAX_PATH) {
        const slash = path.lastIndexOf(SLASH, MAX_PATH);
        const next = openDirectoryBeneath(dir, cString(path.subarray(0, slash)));
        if (dir !== root.fd) closeSync(dir);
        dir = next;
        path = path.subarray(slash + 1);
      }
      linkSync(pathIn(dir, path), copy);
    } finally {
      if (dir !== root.fd) closeSync(dir);
    }
  }
}

const SLASH = 0x2f;
const NEW_FILE = constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL | constants.O_NOFOLLOW;

/** The owner, mode, times and extended attributes of a file. */
class Attributes {
  readonly #uid: number;
  readonly #gid: number;
  readonly #mode: number;
  readonly #times: Buffer;
  readonly #xattrs: readonly (readonly [string, Buffer])[];

  /** Reads those of a file; with `follow`, `handle` is a link to it. */
  constructor({ handle, status }: Pick<TreeEntry, 'handle' | 'status'>, { follow = false } = {}) {
    this.#uid = status.uid;
    this.#gid = status.gid;
    this.#mode = status.mode;
    this.#times = status.times;
    this.#xattrs = readXattrs(handle, { follow });
  }

  /** Applies them to a copy, in an order in which none resets another. */
  applyTo(copy: Buffer): void {
    const path = cString(copy);
    const isLink = (this.#mode & constants.S_IFMT) === constants.S_IFLNK;
    // The owner comes first: changing it removes capabilities and set-user-ID bits.
    lchownSync(copy, this.#uid, this.#gid);
    for (const [name, value] of this.#xattrs) setXattr(path, name, value);
    if (!isLink) chmodSync(copy, this.#mode & 0o7777);
    setTimes(path, this.#times);
  }
}
