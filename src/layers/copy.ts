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
import { SnapshotError } from '../errors.ts';
import { Descent } from '../linux/descent.ts';
import { Descriptors } from '../linux/descriptors.ts';
import { errnoOf, unlessGone } from '../linux/errno.ts';
import { cString } from '../linux/foreign.ts';
import {
  cloneFile,
  copyRange,
  createDirectory,
  makeNode,
  openDirectoryBeneath,
  openLongPathBeneath,
  setTimes,
} from '../linux/file-calls.ts';
import { fileKey } from '../linux/file-key.ts';
import { COPIED_FLAGS, addFlags } from '../linux/inode-flags.ts';
import { linkTarget } from '../linux/link-target.ts';
import { openRegularOrNew, shrunk } from '../linux/regular-file.ts';
import { type SliceOptions, TimeSlice } from '../linux/slices.ts';
import { FileStatus, isDirectory, isRegular } from '../linux/file-status.ts';
import { stretchesOf } from '../linux/stretches.ts';
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
 * nodes, and with them whiteouts; and the flags immutable, append-only and no dump, where the caller may set them. The
 * copy is not made durable.
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
  const slice = new TimeSlice({ signal });
  await slice.renew();
  const renew = async (): Promise<void> => {
    onSlice?.();
    await slice.renew();
  };
  using copier = new Copier(target, {
    onBytes: (bytes) => {
      meter.advance(bytes);
      signal?.throwIfAborted();
      onSlice?.();
    },
    rest: () => (slice.expired ? renew() : undefined),
  });
  for (const entry of source) {
    if (entry !== undefined) {
      await copier.add(entry);
      meter.add(entry);
    }
    if (slice.expired) await renew();
  }
  await copier.finish();
}

/** What goes on beside copying. */
interface CopierOptions {
  /** Called after each part of a large file with the bytes of it that were copied. */
  readonly onBytes: (bytes: number) => void;
  /** Called now and then, to let others run. */
  readonly rest: () => Promise<void> | undefined;
}

/** A directory of the copy. */
interface Place {
  /** `undefined` for the root. */
  readonly above: Place | undefined;
  readonly name: Buffer;
}

/** A directory of the copy that is being filled. */
interface FilledDirectory {
  readonly place: Place;
  /** Applied once it is full, since filling it changes its times. */
  readonly attributes: Attributes;
}

class Copier implements Disposable {
  /** The directory that the copy is made in. */
  readonly #target: number;
  readonly #options: CopierOptions;
  readonly #filled: FilledDirectory[] = [];
  #way: Descent | undefined;
  /** The first place of each file with several links, by `fileKey`. */
  readonly #linked = new Map<string, Place>();
  /** Copies that get their flags last, since no hard link can be made to what is immutable. */
  readonly #flagged: { readonly place: Place; readonly flags: number }[] = [];
  readonly #status = new FileStatus();
  #clones = true;

  constructor(target: number, options: CopierOptions) {
    this.#target = target;
    this.#options = options;
  }

  async add(entry: TreeEntry): Promise<void> {
    if (this.#way === undefined) this.#begin(entry);
    else await this.#copy(this.#way, entry);
  }

  async finish(): Promise<void> {
    const way = this.#way;
    if (way === undefined) return;
    for (const { place, flags } of this.#flagged) {
      addFlagsTo(way.root, place, flags);
      await this.#options.rest();
    }
    await this.#leaveTo(way, 0);
  }

  [Symbol.dispose](): void {
    this.#way?.[Symbol.dispose]();
  }

  #begin(entry: TreeEntry): void {
    const attributes = new Attributes(entry);
    const name = Buffer.from('fs');
    createDirectory(this.#target, cString(name), 0o700);
    this.#way = new Descent(openDirectoryBeneath(this.#target, cString(name)));
    this.#filled.push({ place: { above: undefined, name }, attributes });
  }

  async #copy(way: Descent, entry: TreeEntry): Promise<void> {
    const { name, status } = entry;
    if (way.length > entry.depth) await this.#leaveTo(way, entry.depth);
    const above = this.#filled.at(-1)?.place;
    const copy = pathIn(way.fd, name);
    if (isDirectory(status.mode)) {
      const attributes = unlessGone(() => new Attributes(entry));
      if (attributes === undefined) {
        entry.skip();
        return;
      }
      mkdirSync(copy, 0o700);
      way.enter(openDirectoryBeneath(way.fd, cString(name)), name);
      this.#filled.push({ place: { above, name }, attributes });
      return;
    }
    const key = status.links > 1 ? this.#keyOf(entry) : undefined;
    if (key !== undefined && this.#link(way, key, copy)) return;
    const place = { above, name };
    if (isRegular(status.mode)) await this.#copyFile(way, entry, { copy, place });
    else if (this.#copySpecial(entry, copy) && key !== undefined && key === this.#keyOf(entry)) {
      this.#linked.set(key, place);
    }
  }

  /** The key of a file that may have several links; `undefined` if it is gone. */
  #keyOf(entry: TreeEntry): string | undefined {
    const held = unlessGone(() => entry.hold());
    if (held === undefined) return undefined;
    try {
      return fileKey(held, this.#status);
    } finally {
      closeSync(held);
    }
  }

  /** Makes a hard link if the file with that key was copied before. @returns whether it was */
  #link(way: Descent, key: string, copy: Buffer): boolean {
    const first = this.#linked.get(key);
    if (first !== undefined) linkTo(way.root, first, copy);
    return first !== undefined;
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

  /** Finishes directories that are full, until so many are left. */
  async #leaveTo(way: Descent, length: number): Promise<void> {
    while (way.length > length) {
      const full = this.#filled.pop();
      const expected = way.length - 1;
      const fd = way.leave();
      try {
        // Once this is done, the owner of the layer may have no right any more to go up from it.
        full?.attributes.applyTo(Buffer.from(`${fdPath(fd)}/.`));
        addFlagsIfAllowed(fd, full?.attributes.flags ?? 0);
      } finally {
        closeSync(fd);
      }
      if (way.length !== expected) {
        throw new SnapshotError('FAILED_PRECONDITION', 'directories of a copy were moved while it was made');
      }
      const resting = this.#options.rest();
      if (resting !== undefined) await resting;
    }
  }

  /** Copies a regular file, or the one that has replaced it, unless it is gone. */
  async #copyFile(
    way: Descent,
    entry: TreeEntry,
    { copy, place }: { readonly copy: Buffer; readonly place: Place },
  ): Promise<void> {
    const from = unlessGone(() => openRegularOrNew(entry, this.#status));
    if (from === undefined) return;
    try {
      const key = this.#status.links > 1 ? fileKey(from, this.#status) : undefined;
      if (key !== undefined && this.#link(way, key, copy)) return;
      const to = openSync(copy, NEW_FILE, 0o600);
      try {
        const attributes = await this.#copyData(from, to, entry.path);
        attributes.applyTo(copy);
        if (key === undefined) addFlagsIfAllowed(to, attributes.flags);
        else if (attributes.flags !== 0) this.#flagged.push({ place, flags: attributes.flags });
      } finally {
        closeSync(to);
      }
      if (key !== undefined) this.#linked.set(key, place);
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
    for (const stretch of stretchesOf(from, size)) {
      for (let offset = stretch.from; offset < stretch.to;) {
        const bytes = await copyRange(from, to, offset, Math.min(stretch.to - offset, CHUNK_BYTES));
        if (bytes === 0) return false;
        offset += bytes;
        if (size > CHUNK_BYTES) this.#options.onBytes(offset);
      }
    }
    this.#status.readOpen(from);
    ftruncateSync(to, size);
    return this.#status.size >= size;
  }
}

/** Makes a hard link to a file that was copied before, in a copy whose root is open. */
function linkTo(root: number, place: Place, copy: Buffer): void {
  const dir = openAbove(root, place);
  try {
    linkSync(pathIn(dir, place.name), copy);
  } finally {
    closeSync(dir);
  }
}

/** Opens the directory of a place in a copy whose root is open. */
function openAbove(root: number, { above }: Place): number {
  const names: Buffer[] = [];
  for (let place = above; place?.above !== undefined; place = place.above) names.push(place.name);
  return openLongPathBeneath(root, names.toReversed());
}

/** Sets flags of a regular file in a copy whose root is open. */
function addFlagsTo(root: number, place: Place, flags: number): void {
  using opened = new Descriptors();
  const dir = opened.add(openAbove(root, place));
  addFlagsIfAllowed(opened.add(openSync(pathIn(dir, place.name), OLD_FILE)), flags);
}

/** Sets flags of an open file of the copy, if this process may do that. */
function addFlagsIfAllowed(fd: number, flags: number): void {
  if (flags === 0) return;
  try {
    addFlags(fd, flags);
  } catch (error) {
    if (!['EPERM', 'EACCES', 'ENOTTY', 'ENOTSUP', 'EINVAL'].includes(errnoOf(error))) throw error;
  }
}

const OLD_FILE = constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK;
const NEW_FILE = constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL | constants.O_NOFOLLOW;

/** The owner, mode, times, extended attributes and flags of a file. */
class Attributes {
  readonly #uid: number;
  readonly #gid: number;
  readonly #mode: number;
  readonly #times: Buffer;
  readonly #xattrs: readonly (readonly [string, Buffer])[];
  /** As chattr(1) sets them. */
  readonly flags: number;

  /** Reads those of a file; with `follow`, `handle` is a link to it. */
  constructor({ handle, status }: Pick<TreeEntry, 'handle' | 'status'>, { follow = false } = {}) {
    this.#uid = status.uid;
    this.#gid = status.gid;
    this.#mode = status.mode;
    this.#times = status.times;
    this.#xattrs = readXattrs(handle, { follow });
    this.flags = status.attributes & COPIED_FLAGS;
  }

  /** Applies all but the flags to a copy, in an order in which none resets another. */
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
