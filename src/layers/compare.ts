import { constants, readlinkSync } from 'node:fs';
import type { Checked } from '../arguments.ts';
import { Descriptors } from '../linux/descriptors.ts';
import { isGone, unlessGone } from '../linux/errno.ts';
import { cString } from '../linux/foreign.ts';
import { MAX_PATH, openDirectory } from '../linux/file-calls.ts';
import { read } from '../linux/fs-promises.ts';
import { openRegular } from '../linux/regular-file.ts';
import { TimeSlice } from '../linux/slices.ts';
import { FileStatus, isDirectory, isRegular } from '../linux/status.ts';
import { type TreeEntry, pathIn, walkOpen } from '../linux/tree.ts';
import { listXattrs, readXattrs } from '../linux/xattrs.ts';
import type { Change, DiffOptions, Difference } from '../snapshot.ts';
import { isOpaqueOrRedirect } from './digest.ts';
import { typeOf } from './file-type.ts';

/** How many bytes of each of two files are compared at a time. */
const CHUNK_BYTES = 256 * 1024;

interface Trees {
  /** The roots as open directories; `undefined` for nothing. */
  readonly before: number | undefined;
  readonly after: number;
  /** The layers that only one of them has; `undefined` if they have none in common. */
  readonly layers: readonly string[] | undefined;
}

/**
 * Compares two trees, in the order of the raw bytes of the paths. An added directory is followed by all that it holds;
 * a deleted one stands for it. Of directories, only mode, owner and attributes count.
 */
export async function* diffTrees(
  trees: Trees,
  { contents = false, signal }: Pick<Checked<DiffOptions>, 'contents' | 'signal'>,
): AsyncGenerator<Change, void, undefined> {
  const pace = new TimeSlice({ signal });
  await pace.rest();
  using candidates = new Candidates(trees.layers);
  using before = new Walk(trees.before, pace);
  using after = new Walk(trees.after, pace);
  await Promise.all([before.next(), after.next()]);
  const comparison = new Comparison(contents, pace);
  for (;;) {
    const [old, current] = firstOf(before.entry, after.entry);
    const entry = current ?? old;
    if (entry === undefined) return;
    if (!candidates.have(entry)) {
      old?.skip();
      current?.skip();
    } else if (old === undefined) {
      // That there is a root at all is not worth a word.
      if (!entry.path.equals(ROOT)) yield toChange('added', entry);
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

/** Of two entries those with the path that comes first: both, if it is the same. */
function firstOf(
  old: TreeEntry | undefined,
  current: TreeEntry | undefined,
): [TreeEntry | undefined, TreeEntry | undefined] {
  if (old === undefined || current === undefined) return [old, current];
  const order = Buffer.compare(old.path, current.path);
  return [order > 0 ? undefined : old, order < 0 ? undefined : current];
}

function toChange(kind: Change['kind'], { path, status }: TreeEntry): Change {
  const { mode, size } = status;
  const rawPath = path.equals(ROOT) ? ROOT : Buffer.concat([ROOT, path]);
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

/** A walk that gives the event loop its turn. */
class Walk implements Disposable {
  readonly #entries: Iterator<TreeEntry | undefined, void> & { return?: () => unknown };
  readonly #pace: TimeSlice;
  /** Where it is; `undefined` once it has come to the end. */
  entry: TreeEntry | undefined;

  constructor(root: number | undefined, pace: TimeSlice) {
    this.#entries = root === undefined ? ([] as undefined[]).values() : walkOpen(root);
    this.#pace = pace;
  }

  async next(): Promise<void> {
    for (;;) {
      const { done, value } = this.#entries.next();
      this.entry = value ?? undefined;
      if (this.#pace.due) await this.#pace.rest();
      if (done === true || value !== undefined) return;
    }
  }

  [Symbol.dispose](): void {
    this.#entries.return?.();
  }
}

/** A directory of the trees that are compared. */
interface Level {
  /** One character for each byte, with a slash behind it; empty for the root. */
  readonly path: string;
  /** The layers that have it as a directory. */
  readonly layers: readonly number[];
  /** Whether all below it has to be looked at. */
  readonly whole: boolean;
}

/**
 * Which paths can differ at all between two snapshots that have layers in common: those that a layer of only one of
 * them has, and all below a directory that hides, or is not, what other layers have in its place.
 */
class Candidates implements Disposable {
  readonly #opened = new Descriptors();
  readonly #levels: Level[];
  readonly #status = new FileStatus();

  constructor(layers: readonly string[] | undefined) {
    try {
      const opened = (layers ?? []).map((layer) => this.#opened.add(openDirectory(cString(layer))));
      this.#levels = [{ path: '', layers: opened, whole: layers === undefined }];
    } catch (error) {
      this[Symbol.dispose]();
      throw error;
    }
  }

  /** Whether a path can differ. It is asked for all of them in their order, but for those below one that cannot. */
  have({ text: path, status }: TreeEntry): boolean {
    if (path === '/') return true;
    while (!path.startsWith(this.#levels.at(-1)?.path ?? '')) this.#levels.pop();
    const above = this.#levels.at(-1);
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
    if (found && isDirectory(status.mode)) this.#levels.push({ path, layers, whole });
    return found;
  }

  [Symbol.dispose](): void {
    this.#opened[Symbol.dispose]();
  }
}

/** Whether a directory of a layer stands in the place of what lower layers have of that name. */
function hidesLower(directory: Buffer): boolean {
  return listXattrs(directory).some(isOpaqueOrRedirect);
}

/** Compares files of the same path. */
class Comparison {
  readonly #contents: boolean;
  readonly #pace: TimeSlice;
  readonly #buffers = [Buffer.alloc(CHUNK_BYTES), Buffer.alloc(CHUNK_BYTES)] as const;

  constructor(contents: boolean, pace: TimeSlice) {
    this.#contents = contents;
    this.#pace = pace;
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
      const look = this.#contents || differences.includes('time') || a.modified.endsWith('.0');
      const compared = a.size === b.size && a.size > 0 && look;
      note('contents', compared && !(await this.#sameContents(old.handle, current.handle)));
    } else if (type === constants.S_IFLNK) {
      note('target', !same(linkTarget(old.handle), linkTarget(current.handle)));
    } else if (type === constants.S_IFCHR || type === constants.S_IFBLK) {
      note('device', a.device.major !== b.device.major || a.device.minor !== b.device.minor);
    }
    note('attributes', !same(attributesOf(old.handle), attributesOf(current.handle)));
    return differences;
  }

  /** Whether two files of the same length hold the same. One that has vanished meanwhile does not. */
  async #sameContents(old: Buffer, current: Buffer): Promise<boolean> {
    using opened = new Descriptors();
    try {
      const a = opened.add(openRegular(old.subarray(0, -1)));
      const b = opened.add(openRegular(current.subarray(0, -1)));
      const [left, right] = this.#buffers;
      for (;;) {
        const [one, other] = await Promise.all([
          read(a, left, 0, CHUNK_BYTES, null),
          read(b, right, 0, CHUNK_BYTES, null),
        ]);
        if (!left.subarray(0, one.bytesRead).equals(right.subarray(0, other.bytesRead))) return false;
        if (one.bytesRead === 0) return true;
        if (this.#pace.due) await this.#pace.rest();
      }
    } catch (error) {
      if (isGone(error)) return false;
      throw error;
    }
  }
}

function same(a: Buffer | undefined, b: Buffer | undefined): boolean {
  return a === undefined || b === undefined ? a === b : a.equals(b);
}

/** Where a symbolic link leads to; `undefined` if it has vanished. */
function linkTarget(handle: Buffer): Buffer | undefined {
  return unlessGone(() => readlinkSync(handle.subarray(0, -1), 'buffer'));
}

/** The extended attributes of a file in one piece, without the overlay's own; `undefined` if it has vanished. */
function attributesOf(handle: Buffer): Buffer | undefined {
  return unlessGone(() => {
    const attributes = readXattrs(handle, { only: (name) => !/^(?:trusted|user)\.overlay\./.test(name) });
    return Buffer.concat(
      attributes.flatMap(([name, value]) => [Buffer.from(`${name}\0${value.length}\0`, 'latin1'), value]),
    );
  });
}
