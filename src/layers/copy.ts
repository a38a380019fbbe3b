import {
  chmodSync,
  closeSync,
  constants,
  ftruncateSync,
  lchownSync,
  linkSync,
  mkdirSync,
  openSync,
  readlinkSync,
  symlinkSync,
} from 'node:fs';
import { unlessGone } from '../linux/errno.ts';
import { cString } from '../linux/foreign.ts';
import {
  MAX_PATH,
  cloneFile,
  copyRange,
  makeNode,
  nextData,
  nextHole,
  openDirectory,
  openDirectoryBeneath,
  setTimes,
} from '../linux/file-calls.ts';
import { openRegular, shrunk } from '../linux/regular-file.ts';
import { type SliceOptions, inSlices } from '../linux/slices.ts';
import { FileStatus, isDirectory, isRegular } from '../linux/status.ts';
import { type TreeEntry, fdPath, pathIn, walkTree } from '../linux/tree.ts';
import { readXattrs, setXattr } from '../linux/xattrs.ts';
import { Meter } from './usage.ts';

/** How many bytes of a file are copied at a time: between two times a copy can be ended. */
const CHUNK_BYTES = 16 * 1024 * 1024;

/** How often a file is copied again that changed meanwhile, before it is taken as it is. */
const ATTEMPTS = 5;

/** How a layer is copied. */
export interface CopyOptions extends SliceOptions {
  /** Told of what was copied. */
  readonly meter?: Meter;
}

/**
 * Copies a layer exactly: data with its holes, sharing blocks where the filesystem can; hard links among the files;
 * owners, modes, times to the nanosecond; extended attributes, and with them access control lists and what the
 * overlay keeps; symbolic links, fifos, sockets and device nodes, whiteouts among them. The target must not be
 * there. It is not made durable. Each file is as it was at one moment, unless it is written to all the time, and
 * then at least as long as it was; what appears or vanishes meanwhile may be there or not.
 *
 * @throws {SnapshotError} FAILED_PRECONDITION if a file keeps getting shorter while it is read
 * @throws what the operating system says, as node:fs does
 */
export async function copyLayer(
  source: string,
  target: string,
  { meter = new Meter(), ...watch }: CopyOptions = {},
): Promise<void> {
  const copier = new Copier(target, (bytes) => {
    meter.advance(bytes);
    watch.signal?.throwIfAborted();
    watch.onSlice?.();
  });
  const visit = async (entry: TreeEntry): Promise<void> => {
    await copier.add(entry);
    meter.add(entry);
  };
  try {
    await inSlices(walkTree(source), visit, watch);
    copier.finish();
  } finally {
    copier.close();
  }
}

/** A directory that is being filled. */
interface Level {
  readonly fd: number;
  /** Its path below the source, one character for each byte, with a slash behind it; empty for the root. */
  readonly path: string;
  /** What it gets once it is full, since filling it changes it. */
  readonly attributes: Attributes;
}

class Copier {
  readonly #target: string;
  readonly #onBytes: (bytes: number) => void;
  readonly #levels: Level[] = [];
  /** Where the files with more than one link were copied to first. */
  readonly #linked = new Map<bigint, Buffer>();
  readonly #status = new FileStatus();
  #clones = true;

  /** `onBytes` is told after each part of a large file how much of it was copied. */
  constructor(target: string, onBytes: (bytes: number) => void) {
    this.#target = target;
    this.#onBytes = onBytes;
  }

  async add(entry: TreeEntry): Promise<void> {
    if (this.#levels.length === 0) this.#begin(entry);
    else await this.#copy(entry);
  }

  finish(): void {
    while (this.#levels.length > 0) this.#leave();
  }

  close(): void {
    for (const { fd } of this.#levels.splice(0)) closeSync(fd);
  }

  #begin(entry: TreeEntry): void {
    const attributes = new Attributes(entry);
    mkdirSync(this.#target, 0o700);
    this.#levels.push({ fd: openDirectory(cString(this.#target)), path: '', attributes });
  }

  async #copy(entry: TreeEntry): Promise<void> {
    const { text: path, status } = entry;
    while (!path.startsWith(this.#levels.at(-1)?.path ?? '')) this.#leave();
    const above = this.#levels.at(-1);
    if (above === undefined) throw new Error(`nothing is above ${path}`);
    const directory = isDirectory(status.mode);
    const name = Buffer.from(path.slice(above.path.length, directory ? -1 : undefined), 'latin1');
    const copy = pathIn(above.fd, name);
    if (directory) {
      const attributes = unlessGone(() => new Attributes(entry));
      if (attributes === undefined) return;
      mkdirSync(copy, 0o700);
      const fd = openDirectoryBeneath(above.fd, cString(name));
      this.#levels.push({ fd, path, attributes });
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

  /** Copies what is neither a directory nor a regular file. Whether it was still there. */
  #copySpecial(entry: TreeEntry, copy: Buffer): boolean {
    const { handle, status } = entry;
    const type = status.mode & constants.S_IFMT;
    const found = unlessGone(() => ({
      attributes: new Attributes(entry),
      link: type === constants.S_IFLNK ? readlinkSync(handle.subarray(0, -1), 'buffer') : undefined,
    }));
    if (found === undefined) return false;
    if (found.link === undefined) makeNode(cString(copy), type, status.device);
    else symlinkSync(found.link, copy);
    found.attributes.give(copy);
    return true;
  }

  /** A directory is full: it gets its times, which filling it has changed, and is left. */
  #leave(): void {
    const level = this.#levels.pop();
    if (level === undefined) return;
    try {
      level.attributes.give(Buffer.from(`${fdPath(level.fd)}/.`));
    } finally {
      closeSync(level.fd);
    }
  }

  /** Copies a regular file. Whether it was still there. */
  async #copyFile({ path, handle }: TreeEntry, copy: Buffer): Promise<boolean> {
    const from = unlessGone(() => openRegular(handle.subarray(0, -1)));
    if (from === undefined) return false;
    try {
      this.#status.readOpen(from);
      if (!isRegular(this.#status.mode)) return false;
      const to = openSync(copy, NEW_FILE, 0o600);
      try {
        (await this.#copyData(from, to, path)).give(copy);
      } finally {
        closeSync(to);
      }
    } finally {
      closeSync(from);
    }
    return true;
  }

  /** @returns the attributes that the file had with the data that was copied */
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

  /** Whether there was as much to copy as there should have been. */
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

  /** Links to a file that was copied before, however long the path to it. */
  #link(first: Buffer, copy: Buffer): void {
    const root = this.#levels[0];
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

/** What a file has beside its data: owner, mode, extended attributes and times. */
class Attributes {
  readonly #uid: number;
  readonly #gid: number;
  readonly #mode: number;
  readonly #times: Buffer;
  readonly #xattrs: readonly (readonly [string, Buffer])[];

  /** Takes them from a file of the tree, or, to `follow`, from an open one by the path of its descriptor. */
  constructor({ handle, status }: Pick<TreeEntry, 'handle' | 'status'>, { follow = false } = {}) {
    this.#uid = status.uid;
    this.#gid = status.gid;
    this.#mode = status.mode;
    this.#times = status.times;
    this.#xattrs = readXattrs(handle, { follow });
  }

  /** Gives them to a copy, in an order in which none takes another back. */
  give(copy: Buffer): void {
    const path = cString(copy);
    const isLink = (this.#mode & constants.S_IFMT) === constants.S_IFLNK;
    // Changing the owner takes capabilities and set-user-id bits away.
    lchownSync(copy, this.#uid, this.#gid);
    for (const [name, value] of this.#xattrs) setXattr(path, name, value);
    if (!isLink) chmodSync(copy, this.#mode & 0o7777);
    setTimes(path, this.#times);
  }
}
