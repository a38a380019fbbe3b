import { closeSync, constants, openSync, readlinkSync, realpathSync } from 'node:fs';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { Descriptors } from '../linux/descriptors.ts';
import { isGone, isSystemError, unlessGone } from '../linux/errno.ts';
import { openDirectoryInRoot } from '../linux/file-calls.ts';
import { FileStatus } from '../linux/file-status.ts';
import { AT_FDCWD, O_PATH, cString } from '../linux/foreign.ts';
import {
  type MountEntry,
  type MountTable,
  linesOf,
  mountPointOf,
  ownMountChanges,
  parseHead,
  parseLine,
  readOtherMounts,
  readOwnMounts,
  readOwnMountsNow,
} from '../linux/mountinfo.ts';
import { inSlices } from '../linux/slices.ts';
import { fdPath } from '../linux/tree-walk.ts';
import { quote } from '../quote.ts';
import type { Layout } from './layout.ts';

/*
 * The kernel names a bind mount by its filesystem and the path in that, which is exact in every namespace. Of an overlay
 * it shows the paths of the layers as they were given to it, so these are opened, in the namespace of the mount, and
 * compared by device and inode.
 */

/** What uses a directory. */
export interface Use {
  /** A phrase for a message, such as "the overlay at "/m" uses it". */
  readonly what: string;
  /** Whether that is sure. An overlay that names its layers by relative paths may have others. */
  readonly certain: boolean;
}

/** An overlay with a layer of the store. */
export interface LayerMount {
  readonly id: number;
  readonly mountPoint: string;
  /** The mount point as a phrase for a message. */
  readonly where: string;
}

/** A mount on a directory of the store, or a bind mount of one. */
interface PlacedMount {
  /** The path of the directory below `snapshots/`. */
  readonly below: string;
  readonly mountPoint: string;
  readonly what: string;
}

/** Where `snapshots/` is: the device of its filesystem as in mountinfo, and its path in that. */
interface Place {
  readonly device: string;
  readonly path: string;
}

/** How many lines are looked at without interruption. */
const LINES = 1000;

/** More levels than any path has: it ends a walk that never comes to the root directory. */
const MAX_LEVELS = 2048;

/** What was found in the table of this process, as long as that does not change. */
interface OwnMounts {
  readonly changes: number;
  readonly place: Place | undefined;
  readonly placed: PlacedMounts;
  /** Read only for a survey. */
  overlays?: Overlays;
}

/** Finds the mounts of the directories in a store: bind mounts, overlays, and mounts on them. */
export class StoreMounts {
  readonly #layout: Layout;
  #own: OwnMounts | undefined;
  #next: Promise<MountSurvey> | undefined;

  constructor(layout: Layout) {
    this.#layout = layout;
  }

  /**
   * What is mounted on a directory, or where it is bound to, in this process's namespace: bind mounts and mount points
   * only. The table of mounts is read only if it has changed.
   *
   * @param below its path below `snapshots/`
   */
  async findOwn(below: string): Promise<string | undefined> {
    return (await this.#readOwn()).placed.find(below);
  }

  /** The same as `findOwn`, without interruption. */
  findOwnNow(below: string): string | undefined {
    const changes = ownMountChanges();
    if (this.#own?.changes !== changes) {
      const table = readOwnMountsNow();
      const place = placeOf(this.#layout, table);
      const placed = new PlacedMounts();
      for (const _ of placed.search(table, place)) continue;
      this.#own = { changes, place, placed };
    }
    return this.#own.placed.find(below);
  }

  /** The mounts in this process's namespace on directories below `snapshots/`. */
  async mountPoints(): Promise<readonly Pick<PlacedMount, 'below' | 'mountPoint'>[]> {
    return (await this.#readOwn()).placed.mountPoints;
  }

  /** Looks at the mounts of all namespaces. The calls of one turn of the event loop share a look. */
  survey(): Promise<MountSurvey> {
    const begin = async (): Promise<MountSurvey> => {
      await nextTurn();
      this.#next = undefined;
      return this.#survey();
    };
    return (this.#next ??= begin());
  }

  /** Whether the mount on a directory is of this store. @throws a system error if the directory is missing */
  async isMountOf(target: string): Promise<boolean> {
    const status = statusOf(target);
    if (!status.isMountRoot) return false;
    const table = await readOwnMounts();
    const entry = entryOf(table, status.mountId);
    if (entry === undefined) return false;
    if (entry.type !== 'overlay') {
      const place = placeOf(this.#layout, table);
      const below = place?.device === entry.device ? pathBelow(entry.root, place.path) : undefined;
      return below !== undefined && below !== '';
    }
    using layers = new LayerSearch(this.#layout);
    await layers.addAll(undefined, [entry]);
    return layers.mounts.length > 0;
  }

  async #readOwn(): Promise<OwnMounts> {
    const changes = ownMountChanges();
    if (this.#own?.changes === changes) return this.#own;
    const table = await readOwnMounts();
    const place = placeOf(this.#layout, table);
    const placed = new PlacedMounts();
    await inSlices(placed.search(table, place), () => {});
    return (this.#own = { changes, place, placed });
  }

  async #survey(): Promise<MountSurvey> {
    const own = await this.#readOwn();
    own.overlays ??= await overlaysOf(await readOwnMounts());
    let { count } = own.overlays;
    const others = new PlacedMounts();
    using layers = new LayerSearch(this.#layout);
    await layers.addAll(undefined, own.overlays.entries);
    for (const table of await readOtherMounts()) {
      await inSlices(others.search(table, own.place), () => {});
      const overlays = await overlaysOf(table);
      await layers.addAll(table.process, overlays.entries);
      count += overlays.count;
    }
    return new MountSurvey(this.#layout, { count, placed: [own.placed, others], layers });
  }
}

/** What was mounted of the directories of a store at one time. */
export class MountSurvey {
  /** How many mounts were looked at. */
  readonly count: number;
  /** The overlays with layers of the store. */
  readonly overlays: readonly LayerMount[];
  readonly #layout: Layout;
  readonly #placed: readonly PlacedMounts[];
  readonly #certain: ReadonlyMap<string, string>;
  readonly #possible: ReadonlyMap<string, string>;

  constructor(
    layout: Layout,
    found: { count: number; placed: readonly PlacedMounts[]; layers: LayerSearch },
  ) {
    this.#layout = layout;
    const { count, placed, layers } = found;
    this.count = count;
    this.#placed = placed;
    this.#certain = layers.certain;
    this.#possible = layers.possible;
    this.overlays = layers.mounts;
  }

  /**
   * What uses a directory: a mount on it or below it, a bind mount of something in it, or an overlay with a layer in
   * it.
   *
   * @param below its path below `snapshots/`
   */
  findUse(below: string): Use | undefined {
    const bind = this.#findBind(below);
    if (bind !== undefined) return { what: bind, certain: true };
    if (this.#certain.size === 0 && this.#possible.size === 0) return undefined;
    const keys = ['', '/fs', '/work'].flatMap((part) => this.#keyOf(`${below}${part}`));
    for (const [certain, uses] of [[true, this.#certain] as const, [false, this.#possible] as const]) {
      const what = keys.map((key) => uses.get(key)).find((use) => use !== undefined);
      if (what !== undefined) return { what, certain };
    }
    return undefined;
  }

  #findBind(below: string): string | undefined {
    return this.#placed.map((placed) => placed.find(below)).find((what) => what !== undefined);
  }

  #keyOf(below: string): string[] {
    const status = new FileStatus();
    try {
      return status.read(AT_FDCWD, cString(`${this.#layout.snapshots}/${below}`)) ? [status.identityKey] : [];
    } catch (error) {
      if (isGone(error)) return [];
      throw error;
    }
  }
}

/** The path from one directory to another within it; `undefined` if it is not within it. */
function pathBelow(path: string, directory: string): string | undefined {
  if (path === directory) return '';
  const prefix = directory === '/' ? '/' : `${directory}/`;
  return path.startsWith(prefix) ? path.slice(prefix.length) : undefined;
}

/** The status of a directory. @throws a system error if there is none */
function statusOf(directory: string): FileStatus {
  const fd = openSync(directory, O_PATH | constants.O_DIRECTORY | constants.O_NOFOLLOW);
  try {
    const status = new FileStatus();
    status.readOpen(fd);
    return status;
  } finally {
    closeSync(fd);
  }
}

/** Where `snapshots/` is, going by the mount that it is reached by. */
function placeOf(layout: Layout, table: MountTable): Place | undefined {
  const found = unlessGone(() => ({
    entry: entryOf(table, statusOf(layout.snapshots).mountId),
    path: realpathSync(layout.snapshots),
  }));
  const rest = found?.entry && pathBelow(found.path, found.entry.mountPoint);
  if (found?.entry === undefined || rest === undefined) return undefined;
  return { device: found.entry.device, path: join(found.entry.root, rest) };
}

function join(directory: string, rest: string): string {
  if (rest === '') return directory;
  return directory === '/' ? `/${rest}` : `${directory}/${rest}`;
}

function entryOf(table: MountTable, id: number): MountEntry | undefined {
  for (const line of linesOf(table)) {
    if (line.startsWith(`${id} `)) return parseLine(line);
  }
  return undefined;
}

/** The overlays in a table, and how many mounts are in it. */
interface Overlays {
  readonly entries: readonly MountEntry[];
  readonly count: number;
}

async function overlaysOf(table: MountTable): Promise<Overlays> {
  const entries: MountEntry[] = [];
  let count = 0;
  const lines = function* (): Generator<string | undefined, void, undefined> {
    for (const line of linesOf(table)) {
      count += 1;
      if (parseHead(line).isOverlay) yield line;
      else if (count % LINES === 0) yield undefined;
    }
  };
  await inSlices(lines(), (line) => {
    const entry = parseLine(line);
    if (entry !== undefined) entries.push(entry);
  });
  return { entries, count };
}

/** The mount point of a mount as people can find it. */
function whereOf(process: number | undefined, mountPoint: string): string {
  return `${quote(mountPoint)}${process === undefined ? '' : ' in another mount namespace'}`;
}

/** The bind mounts of directories below `snapshots/`, and the mounts on them. */
class PlacedMounts {
  readonly mountPoints: PlacedMount[] = [];
  /** By the first part of the path below `snapshots/`. */
  readonly #byDirectory = new Map<string, PlacedMount[]>();

  /** Adds those in a table. Yields to give an opportunity to end a slice. */
  *search(table: MountTable, place: Place | undefined): Generator<undefined, void, undefined> {
    if (place === undefined) return;
    let count = 0;
    /** The mounts that show `snapshots/`, or something in it: where, and the path of that below `snapshots/`. */
    const shown = new Map<number, { readonly at: string; readonly below: string }>();
    for (const line of linesOf(table)) {
      if ((count += 1) % LINES === 0) yield undefined;
      if (parseHead(line).device !== place.device) continue;
      const entry = parseLine(line);
      if (entry === undefined) continue;
      const { id, root, mountPoint } = entry;
      const rest = pathBelow(place.path, root);
      const below = pathBelow(root, place.path);
      if (rest !== undefined) shown.set(id, { at: join(mountPoint, rest), below: '' });
      else if (below !== undefined) {
        shown.set(id, { at: mountPoint, below });
        this.#add({ below, mountPoint, what: `it is mounted at ${whereOf(table.process, mountPoint)}` });
      }
    }
    for (const line of linesOf(table)) {
      if ((count += 1) % LINES === 0) yield undefined;
      const parent = shown.get(parseHead(line).parentId);
      if (parent === undefined) continue;
      const mountPoint = mountPointOf(line);
      const rest = pathBelow(mountPoint, parent.at);
      if (rest === undefined) continue;
      const below = parent.below === '' ? rest : join(parent.below, rest);
      if (below === '') continue;
      const what = `${whereOf(table.process, mountPoint)} is a mount point`;
      this.mountPoints.push({ below, mountPoint, what });
      this.#add({ below, mountPoint, what });
    }
  }

  find(below: string): string | undefined {
    const [first = ''] = below.split('/', 1);
    return this.#byDirectory.get(first)?.find((mount) => pathBelow(mount.below, below) !== undefined)?.what;
  }

  #add(mount: PlacedMount): void {
    const [first = ''] = mount.below.split('/', 1);
    const known = this.#byDirectory.get(first);
    if (known === undefined) this.#byDirectory.set(first, [mount]);
    else known.push(mount);
  }
}

/** Finds the layers of overlays by device and inode. */
class LayerSearch implements Disposable {
  readonly mounts: LayerMount[] = [];
  /** What uses a directory or something in it, by the identity of the directory. */
  readonly certain = new Map<string, string>();
  /** What may use it. */
  readonly possible = new Map<string, string>();
  readonly #opened = new Descriptors();
  readonly #status = new FileStatus();
  /** The directories that relative names may begin at: `snapshots/` and the root of the store. */
  readonly #starts: readonly number[];
  /** The device and the identity of `snapshots/`; empty if that is missing. */
  readonly #device: string = '';
  readonly #snapshots: string = '';
  /** The identities of directories that are not in the store. */
  readonly #elsewhere = new Set<string>();

  constructor({ root, snapshots }: Layout) {
    this.#starts = [snapshots, `${root}/.`].flatMap((path) => this.#openStart(path));
    const [held] = this.#starts;
    if (held === undefined) return;
    this.#status.readOpen(held);
    this.#device = this.#status.deviceKey;
    this.#snapshots = this.#status.identityKey;
  }

  #openStart(path: string): number[] {
    try {
      return [this.#opened.add(openSync(path, O_PATH | constants.O_DIRECTORY | constants.O_NOFOLLOW))];
    } catch (error) {
      if (isGone(error)) return [];
      throw error;
    }
  }

  [Symbol.dispose](): void {
    this.#opened[Symbol.dispose]();
  }

  /** Adds the layers of overlays in the namespace of a process; `undefined` is this one. */
  async addAll(process: number | undefined, overlays: readonly MountEntry[]): Promise<void> {
    const named = new Map<string, MountEntry[]>();
    for (const entry of overlays) {
      for (const path of entry.layers) {
        const known = named.get(path);
        if (known === undefined) named.set(path, [entry]);
        else known.push(entry);
      }
    }
    if (named.size === 0 || this.#starts.length < 2) return;
    const here = this.#openRoot('/');
    const there = process === undefined ? here : this.#openRoot(`/proc/${process}/root`);
    for (const [path, entries] of named) {
      const where = entries.map(({ mountPoint }) => whereOf(process, mountPoint));
      const mount = `the overlay at ${where[0]}`;
      if (!path.startsWith('/')) {
        await this.#addPossible(
          this.#starts,
          path,
          `${mount}, which names its layers by relative paths, may use it`,
        );
        continue;
      }
      const id = await this.#withOpened(there, path, (fd) => this.#addLayer(fd, `${mount} uses it`));
      if (typeof id === 'number') {
        entries.forEach(({ mountPoint }, number) =>
          this.mounts.push({ id, mountPoint, where: where[number] ?? '' }),
        );
      } else if (id === undefined && there !== here) {
        // A mount that was made from here may be seen by a process with another root directory.
        await this.#addPossible([here], path, `${mount}, whose layers are not found there, may use it`);
      }
    }
  }

  #openRoot(path: string): number | undefined {
    try {
      return this.#opened.add(openSync(path, O_PATH | constants.O_DIRECTORY));
    } catch {
      // The process has ended.
      return undefined;
    }
  }

  /** Adds an open directory. @returns the id of the snapshot that it belongs to; `null` if it is not in the store */
  #addLayer(fd: number, what: string): number | null {
    const levels = this.#addAncestors(fd, this.certain, what);
    const name = levels === undefined ? '' : (readlinkSync(fdPath(fd)).split('/').at(-levels) ?? '');
    return /^[1-9]\d{0,15}$/.test(name) ? Number(name) : null;
  }

  async #addPossible(starts: readonly (number | undefined)[], path: string, what: string): Promise<void> {
    for (const start of starts) {
      await this.#withOpened(start, path, (fd) => this.#addAncestors(fd, this.possible, what));
    }
  }

  /** Runs `body` on the directory at a path. @returns `undefined` if there is none, or it may not be read */
  async #withOpened<T>(
    root: number | undefined,
    path: string,
    body: (fd: number) => T,
  ): Promise<T | undefined> {
    if (root === undefined) return undefined;
    try {
      const fd = await openDirectoryInRoot(root, cString(path));
      try {
        return body(fd);
      } finally {
        closeSync(fd);
      }
    } catch (error) {
      if (isSystemError(error)) return undefined;
      throw error;
    }
  }

  /** Adds a directory and all above it, if it is in the store. @returns how far below `snapshots/` it is */
  #addAncestors(fd: number, uses: Map<string, string>, what: string): number | undefined {
    this.#status.readOpen(fd);
    if (this.#status.deviceKey !== this.#device) return undefined;
    const passed: string[] = [];
    for (let level = 0; level < MAX_LEVELS; level += 1) {
      if (level > 0) this.#status.read(fd, cString('../'.repeat(level)));
      const key = this.#status.identityKey;
      if (key === this.#snapshots) {
        for (const one of passed) if (!uses.has(one)) uses.set(one, what);
        return level;
      }
      // The root directory is its own parent.
      if (key === passed.at(-1) || this.#elsewhere.has(key)) break;
      passed.push(key);
    }
    for (const one of passed) this.#elsewhere.add(one);
    return undefined;
  }
}
