import { closeSync, constants, openSync, readlinkSync } from 'node:fs';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { Descriptors } from '../linux/descriptors.ts';
import { isGone, isSystemError } from '../linux/errno.ts';
import { openDirectoryInRoot } from '../linux/file-calls.ts';
import { FileStatus } from '../linux/file-status.ts';
import { O_PATH, cString } from '../linux/foreign.ts';
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
import type { HeldRoot } from './held-root.ts';

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

/** The longest table that is looked at without interruption, in bytes. */
const SHORT_TABLE = LINES * 100;

/** More levels than any path has: it ends a walk that never comes to the root directory. */
const MAX_LEVELS = 2048;

/** What was found in the table of this process, as long as that does not change. */
interface OwnMounts {
  readonly changes: number;
  readonly place: Place | undefined;
  readonly placed: PlacedMounts;
  /** Looked for only in a survey. */
  layers?: { readonly found: LayerSearch; readonly count: number };
}

/** Finds the mounts of the directories in a store: bind mounts, overlays, and mounts on them. */
export class StoreMounts {
  readonly #root: HeldRoot;
  #own: OwnMounts | undefined;
  #next: Promise<MountSurvey> | undefined;

  constructor(root: HeldRoot) {
    this.#root = root;
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
      const place = placeOf(this.#root, table);
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
    const id = mountOn(target);
    if (id === undefined) return false;
    const table = await readOwnMounts();
    const entry = entryOf(table, id);
    if (entry === undefined) return false;
    if (entry.type !== 'overlay') {
      const place = placeOf(this.#root, table);
      const below = place?.device === entry.device ? pathBelow(entry.root, place.path) : undefined;
      return below !== undefined && below !== '';
    }
    const layers = new LayerSearch();
    await layers.addAll(this.#root, undefined, [entry], { firstOnly: true });
    return layers.mounts.length > 0;
  }

  async #readOwn(): Promise<OwnMounts> {
    const changes = ownMountChanges();
    if (this.#own?.changes === changes) return this.#own;
    const table = await readOwnMounts();
    const place = placeOf(this.#root, table);
    const placed = new PlacedMounts();
    await drain(placed.search(table, place), table);
    return (this.#own = { changes, place, placed });
  }

  async #survey(): Promise<MountSurvey> {
    const own = await this.#readOwn();
    own.layers ??= await this.#searchOwn();
    let { count } = own.layers;
    const placed = new PlacedMounts();
    const layers = new LayerSearch();
    for (const table of await readOtherMounts()) {
      await drain(placed.search(table, own.place), table);
      const overlays = await overlaysOf(table);
      await layers.addAll(this.#root, table.process, overlays.entries);
      count += overlays.count;
    }
    return new MountSurvey(this.#root, {
      count,
      placed: [own.placed, placed],
      layers: [own.layers.found, layers],
    });
  }

  async #searchOwn(): Promise<{ found: LayerSearch; count: number }> {
    const { entries, count } = await overlaysOf(await readOwnMounts());
    const found = new LayerSearch();
    await found.addAll(this.#root, undefined, entries);
    return { found, count };
  }
}

/** What was mounted of the directories of a store at one time. */
export class MountSurvey {
  /** How many mounts were looked at. */
  readonly count: number;
  /** The overlays with layers of the store. */
  readonly overlays: readonly LayerMount[];
  readonly #root: HeldRoot;
  readonly #placed: readonly PlacedMounts[];
  readonly #layers: readonly LayerSearch[];

  constructor(
    root: HeldRoot,
    found: { count: number; placed: readonly PlacedMounts[]; layers: readonly LayerSearch[] },
  ) {
    this.#root = root;
    this.count = found.count;
    this.#placed = found.placed;
    this.#layers = found.layers;
    this.overlays = found.layers.flatMap(({ mounts }) => mounts);
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
    if (this.#layers.every(({ isEmpty }) => isEmpty)) return undefined;
    const keys = ['', '/fs', '/work'].flatMap((part) => this.#keyOf(`${below}${part}`));
    const find = (uses: 'certain' | 'possible'): string | undefined =>
      this.#layers
        .flatMap((layers) => keys.map((key) => layers[uses].get(key)))
        .find((what) => what !== undefined);
    const certain = find('certain');
    if (certain !== undefined) return { what: certain, certain: true };
    const possible = find('possible');
    return possible === undefined ? undefined : { what: possible, certain: false };
  }

  #findBind(below: string): string | undefined {
    return this.#placed.map((placed) => placed.find(below)).find((what) => what !== undefined);
  }

  #keyOf(below: string): string[] {
    const status = new FileStatus();
    try {
      return status.read(this.#root.snapshots, cString(below)) ? [status.identityKey] : [];
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

/** The mount on a directory, as mountinfo numbers it. @throws a system error if the directory is missing */
function mountOn(directory: string): number | undefined {
  const fd = openSync(directory, O_PATH | constants.O_DIRECTORY | constants.O_NOFOLLOW);
  try {
    const status = new FileStatus();
    status.readOpen(fd);
    return status.isMountRoot ? status.mountId : undefined;
  } finally {
    closeSync(fd);
  }
}

/** Where `snapshots/` is, going by the mount that it is reached by. */
function placeOf(root: HeldRoot, table: MountTable): Place | undefined {
  if (!root.has('snapshots')) return undefined;
  const status = new FileStatus();
  status.readOpen(root.snapshots);
  const entry = entryOf(table, status.mountId);
  const rest = entry && pathBelow(readlinkSync(fdPath(root.snapshots)), entry.mountPoint);
  if (entry === undefined || rest === undefined) return undefined;
  return { device: entry.device, path: join(entry.root, rest) };
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

/** Takes all steps, in slices if the table is long. */
async function drain(steps: Iterable<undefined>, { text }: MountTable): Promise<void> {
  if (text.length > SHORT_TABLE) {
    await inSlices(steps, () => {});
    return;
  }
  for (const _ of steps) continue;
}

/** The overlays in a table, and how many mounts are in it. */
interface Overlays {
  readonly entries: readonly MountEntry[];
  readonly count: number;
}

async function overlaysOf(table: MountTable): Promise<Overlays> {
  const entries: MountEntry[] = [];
  let count = 0;
  const search = function* (): Generator<undefined, void, undefined> {
    for (const line of linesOf(table)) {
      count += 1;
      if (count % LINES === 0) yield undefined;
      const entry = parseHead(line).isOverlay ? parseLine(line) : undefined;
      if (entry !== undefined) entries.push(entry);
    }
  };
  await drain(search(), table);
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
class LayerSearch {
  readonly mounts: LayerMount[] = [];
  /** What uses a directory or something in it, by the identity of the directory. */
  readonly certain = new Map<string, string>();
  /** What may use it. */
  readonly possible = new Map<string, string>();
  readonly #status = new FileStatus();
  /** The device and the identity of `snapshots/`. */
  #device = '';
  #snapshots = '';
  /** The identities of directories that are not in the store. */
  readonly #elsewhere = new Set<string>();

  get isEmpty(): boolean {
    return this.certain.size === 0 && this.possible.size === 0;
  }

  /**
   * Adds the layers of overlays in the namespace of a process; `undefined` is this one.
   *
   * @param firstOnly whether the first layer that is found is enough (default: false)
   */
  async addAll(
    root: HeldRoot,
    process: number | undefined,
    overlays: readonly MountEntry[],
    { firstOnly = false } = {},
  ): Promise<void> {
    if (overlays.length === 0 || !root.has('snapshots')) return;
    using opened = new Descriptors();
    // The directories that relative names may begin at.
    const starts = [root.snapshots, root.fd];
    this.#status.readOpen(root.snapshots);
    this.#device = this.#status.deviceKey;
    this.#snapshots = this.#status.identityKey;
    const here = openHere('/', opened);
    const there = process === undefined ? here : openHere(`/proc/${process}/root/.`, opened);
    for (const [path, entries] of byLayer(overlays)) {
      const where = entries.map(({ mountPoint }) => whereOf(process, mountPoint));
      const mount = `the overlay at ${where[0]}`;
      if (!path.startsWith('/')) {
        const what = `${mount}, which names its layers by relative paths, may use it`;
        for (const start of starts) await this.#addPossible(start, path, what);
        continue;
      }
      const id = await withOpened(there, path, (fd) => this.#addLayer(fd, `${mount} uses it`));
      if (typeof id === 'number') {
        for (const [number, { mountPoint }] of entries.entries()) {
          this.mounts.push({ id, mountPoint, where: where[number] ?? '' });
        }
        if (firstOnly) return;
      } else if (id === undefined && there !== here) {
        // A mount that was made from here may be seen by a process with another root directory.
        await this.#addPossible(here, path, `${mount}, whose layers are not found there, may use it`);
      }
    }
  }

  /** Adds an open directory. @returns the id of the snapshot that it belongs to; `null` if it is not in the store */
  #addLayer(fd: number, what: string): number | null {
    const levels = this.#addAncestors(fd, this.certain, what);
    const name = levels === undefined ? '' : (readlinkSync(fdPath(fd)).split('/').at(-levels) ?? '');
    return /^[1-9]\d{0,15}$/.test(name) ? Number(name) : null;
  }

  async #addPossible(start: number | undefined, path: string, what: string): Promise<void> {
    await withOpened(start, path, (fd) => this.#addAncestors(fd, this.possible, what));
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

/** Overlays by the paths of their layers. */
function byLayer(overlays: readonly MountEntry[]): Map<string, MountEntry[]> {
  const named = new Map<string, MountEntry[]>();
  for (const entry of overlays) {
    for (const path of entry.layers) {
      const known = named.get(path);
      if (known === undefined) named.set(path, [entry]);
      else known.push(entry);
    }
  }
  return named;
}

/** Opens a directory. @returns `undefined` if it is gone, or may not be read */
function openHere(path: string, opened: Descriptors): number | undefined {
  try {
    return opened.add(openSync(path, O_PATH | constants.O_DIRECTORY | constants.O_NOFOLLOW));
  } catch (error) {
    if (isSystemError(error)) return undefined;
    throw error;
  }
}

/** Runs `body` on the directory at a path. @returns `undefined` if there is none, or it may not be read */
async function withOpened<T>(
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
