import { constants } from 'node:fs';
import type { Checked } from '../arguments.ts';
import { Descriptors, allEnded } from '../linux/descriptors.ts';
import { isGone, unlessGone } from '../linux/errno.ts';
import { cString } from '../linux/foreign.ts';
import { MAX_PATH } from '../linux/file-calls.ts';
import { read } from '../linux/fs-promises.ts';
import { linkTarget } from '../linux/link-target.ts';
import { openRegular } from '../linux/regular-file.ts';
import { TimeSlice } from '../linux/slices.ts';
import { FileStatus, isDirectory, isRegular } from '../linux/file-status.ts';
import { type TreeEntry, pathIn, walkOpen } from '../linux/tree-walk.ts';
import { stretchesOfEither } from '../linux/stretches.ts';
import { listXattrs, readXattrs } from '../linux/xattrs.ts';
import type { Change, DiffOptions, Difference } from '../snapshot.ts';
import { isOpaqueOrRedirect } from './digest.ts';
import { typeOf } from './file-type.ts';

/** How many bytes of each of two files are compared at a time. */
const CHUNK_BYTES = 256 * 1024;

interface Trees {
  /** The descriptors of the roots; `undefined` for no tree. */
  readonly before: number | undefined;
  readonly after: number;
  /** The descriptors of the layers that only one tree has; `undefined` if they have no layer in common. */
  readonly layers: readonly number[] | undefined;
  /** How the names of overlayfs's own attributes begin, which are not compared. */
  readonly ownAttributes: string;
}

/**
 * Compares two trees, in the order of the raw bytes of the paths. An added directory is followed by its contents; a
 * deleted one is reported without them. Of directories, only mode, owner and extended attributes are compared.
 */
export async function* diffTrees(
  trees: Trees,
  { contents = false, signal }: Pick<Checked<DiffOptions>, 'contents' | 'signal'>,
): AsyncGenerator<Change, void, undefined> {
  const slice = new TimeSlice({ signal });
  await slice.renew();
  const candidates = new Candidates(trees.layers);
  using before = new Cursor(trees.before, slice);
  using after = new Cursor(trees.after, slice);
  await Promise.all([before.next(), after.next()]);
  const comparison = new Comparison(contents, slice, trees.ownAttributes);
  for (;;) {
    const [old, current] = firstOf(before.entry, after.entry);
    const entry = current ?? old;
    if (entry === undefined) return;
    if (!candidates.have(entry)) {
      old?.skip();
      current?.skip();
    } else if (old === undefined) {
      // The root itself is never reported as added.
      if (entry.depth > 0) yield toChange('added', entry);
    } else if (current === undefined) {
      yield toChange('deleted', entry);
      old.skip();
    } else {
      const differences = await comparison.compare(old, current);
      if (differences.length > 0) yield { ...toChange('modified', entry), differences };
    }
    if (old !== undefined) await before.next();
    if (current !== undefined) await after.next();
  }
}

/** The one of two entries whose path comes first, or both if they have the same path. */
function firstOf(
  old: TreeEntry | undefined,
  current: TreeEntry | undefined,
): [TreeEntry | undefined, TreeEntry | undefined] {
  if (old === undefined || current === undefined) return [old, current];
  // The values of the characters are those of the bytes.
  const order = old.text === current.text ? 0 : old.text < current.text ? -1 : 1;
  return [order > 0 ? undefined : old, order < 0 ? undefined : current];
}

function toChange(kind: Change['kind'], { path, depth, status }: TreeEntry): Change {
  const { mode, size } = status;
  const rawPath = depth === 0 ? ROOT : Buffer.concat([ROOT, path]);
  return {
    kind,
    path: rawPath.toString(),
    rawPath,
    type: typeOf(mode),
    size: isRegular(mode) ? size : null,
    differences: [],
  };
}

const ROOT = Buffer.from('/');

/** A walk whose current entry can be looked at. */
class Cursor implements Disposable {
  readonly #entries: Iterator<TreeEntry | undefined, void> & { return?: () => unknown };
  readonly #slice: TimeSlice;
  /** `undefined` at the end. */
  entry: TreeEntry | undefined;

  constructor(root: number | undefined, slice: TimeSlice) {
    this.#entries = root === undefined ? ([] as undefined[]).values() : walkOpen(root);
    this.#slice = slice;
  }

  async next(): Promise<void> {
    for (;;) {
      const { done, value } = this.#entries.next();
      this.entry = value ?? undefined;
      if (this.#slice.expired) await this.#slice.renew();
      if (done === true || value !== undefined) return;
    }
  }

  [Symbol.dispose](): void {
    this.#entries.return?.();
  }
}

/** A directory above the current path. */
interface ComparedDirectory {
  /** The descriptors of the layers that have it as a directory. */
  readonly layers: readonly number[];
  /** Whether every path below it can differ. */
  readonly whole: boolean;
}

/**
 * The paths that can differ between two snapshots that have layers in common: those that are in a layer of only one of
 * them; and everything below a path where such a layer has something else than a directory, or has a directory that
 * hides those of lower layers.
 */
class Candidates {
  readonly #stack: ComparedDirectory[];
  readonly #status = new FileStatus();

  constructor(layers: readonly number[] | undefined) {
    this.#stack = [{ layers: layers ?? [], whole: layers === undefined }];
  }

  /** Whether a path can differ. To be called in the order of the paths, but not for those below a path that cannot. */
  have({ text: path, depth, status }: TreeEntry): boolean {
    if (depth === 0) return true;
    this.#stack.splice(depth);
    const above = this.#stack.at(-1);
    if (above === undefined) return true;
    const layers: number[] = [];
    let whole = above.whole || path.length > MAX_PATH;
    let found = whole;
    if (!whole) {
      const name = cString(Buffer.from(isDirectory(status.mode) ? path.slice(0, -1) : path, 'latin1'));
      for (const layer of above.layers) {
        if (!this.#status.read(layer, name)) continue;
        found = true;
        if (isDirectory(this.#status.mode)) layers.push(layer);
        whole ||= !isDirectory(this.#status.mode) || hidesLower(pathIn(layer, name));
      }
    }
    if (found && isDirectory(status.mode)) this.#stack.push({ layers, whole });
    return found;
  }
}

/** Whether a directory of a layer hides the directories of that name in lower layers. */
function hidesLower(directory: Buffer): boolean {
  return listXattrs(directory).some(isOpaqueOrRedirect);
}

/** Compares two files that have the same path. */
class Comparison {
  readonly #contents: boolean;
  readonly #ownAttributes: string;
  readonly #slice: TimeSlice;
  readonly #opened = new FileStatus();
  readonly #buffers = [Buffer.alloc(CHUNK_BYTES), Buffer.alloc(CHUNK_BYTES)] as const;

  constructor(contents: boolean, slice: TimeSlice, ownAttributes: string) {
    this.#ownAttributes = ownAttributes;
    this.#contents = contents;
    this.#slice = slice;
  }

  async compare(old: TreeEntry, current: TreeEntry): Promise<Difference[]> {
    const [a, b] = [old.status, current.status];
    const type = a.mode & constants.S_IFMT;
    if (type !== (b.mode & constants.S_IFMT)) return ['type'];
    const differences: Difference[] = [];
    const note = (difference: Difference, differs: boolean): void => {
      if (differs) differences.push(difference);
    };
    note('mode', a.mode !== b.mode);
    note('owner', a.uid !== b.uid || a.gid !== b.gid);
    if (type !== constants.S_IFDIR) note('time', a.modified !== b.modified);
    if (type === constants.S_IFREG) {
      note('size', a.size !== b.size);
      const doubtful = this.#contents || differences.includes('time') || a.modified.endsWith('.0');
      const compared = a.size === b.size && a.size > 0 && doubtful;
      note('contents', compared && !(await this.#sameContents(old, current)));
    } else if (type === constants.S_IFLNK) {
      note('target', !same(targetOf(old.handle), targetOf(current.handle)));
    } else if (type === constants.S_IFCHR || type === constants.S_IFBLK) {
      note('device', a.device.major !== b.device.major || a.device.minor !== b.device.minor);
    }
    const own = this.#ownAttributes;
    note('attributes', !same(attributesOf(old.handle, own), attributesOf(current.handle, own)));
    return differences;
  }

  /** Whether two files of the same size have the same contents. False if one was deleted or replaced meanwhile. */
  async #sameContents(old: TreeEntry, current: TreeEntry): Promise<boolean> {
    using opened = new Descriptors();
    try {
      const a = opened.add(openRegular(old, this.#opened));
      const b = opened.add(openRegular(current, this.#opened));
      const [left, right] = this.#buffers;
      for (const { from, to } of stretchesOfEither(a, b, this.#opened.size)) {
        for (let at = from; at < to;) {
          const length = Math.min(CHUNK_BYTES, to - at);
          const [one, other] = await allEnded([read(a, left, 0, length, at), read(b, right, 0, length, at)]);
          if (!left.subarray(0, one.bytesRead).equals(right.subarray(0, other.bytesRead))) return false;
          if (one.bytesRead === 0) return true;
          at += one.bytesRead;
          if (this.#slice.expired) await this.#slice.renew();
        }
      }
      return true;
    } catch (error) {
      if (isGone(error)) return false;
      throw error;
    }
  }
}

function same(a: Buffer | undefined, b: Buffer | undefined): boolean {
  return a === undefined || b === undefined ? a === b : a.equals(b);
}

/** The target of a symbolic link; `undefined` if it has vanished. */
function targetOf(handle: Buffer): Buffer | undefined {
  return unlessGone(() => linkTarget(handle.subarray(0, -1)));
}

/** The extended attributes of a file as bytes, without overlayfs's own; `undefined` if it has vanished. */
function attributesOf(handle: Buffer, own: string): Buffer | undefined {
  return unlessGone(() => {
    const attributes = readXattrs(handle, { only: (name) => !name.startsWith(own) });
    return Buffer.concat(
      attributes.flatMap(([name, value]) => [Buffer.from(`${name}\0${value.length}\0`, 'latin1'), value]),
    );
  });
}
