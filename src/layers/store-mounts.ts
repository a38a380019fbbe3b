import { closeSync, constants, openSync } from 'node:fs';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { isGone } from '../linux/errno.ts';
import { FileStatus } from '../linux/file-status.ts';
import { O_PATH, cString } from '../linux/foreign.ts';
import {
  findMount,
  ownMountChanges,
  readOtherMounts,
  readOwnMounts,
  readOwnMountsNow,
  searchThrough,
} from '../linux/mountinfo.ts';
import type { HeldRoot } from './held-root.ts';
import { type LayerMount, OverlayLayers, overlaysOf } from './overlay-layers.ts';
import { type Place, type PlacedMount, PlacedMounts, pathBelow, placeOf } from './placed-mounts.ts';

/** What uses a directory. */
export interface Use {
  /** A phrase for a message, such as "the overlay at "/m" uses it". */
  readonly what: string;
  /** Whether that is sure. An overlay that names its layers by relative paths may have others. */
  readonly certain: boolean;
}

/** What was found in the table of this process, as long as that does not change. */
interface OwnMounts {
  readonly changes: number;
  readonly place: Place | undefined;
  readonly placed: PlacedMounts;
  /** Looked for only in a survey. */
  layers?: { readonly found: OverlayLayers; readonly count: number };
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
    const entry = findMount(table, id);
    if (entry === undefined) return false;
    if (entry.type !== 'overlay') {
      const place = placeOf(this.#root, table);
      const below = place?.device === entry.device ? pathBelow(entry.root, place.path) : undefined;
      return below !== undefined && below !== '';
    }
    const layers = new OverlayLayers();
    await layers.addAll(this.#root, undefined, [entry], { firstOnly: true });
    return layers.mounts.length > 0;
  }

  async #readOwn(): Promise<OwnMounts> {
    const changes = ownMountChanges();
    if (this.#own?.changes === changes) return this.#own;
    const table = await readOwnMounts();
    const place = placeOf(this.#root, table);
    const placed = new PlacedMounts();
    await searchThrough(table, placed.search(table, place));
    return (this.#own = { changes, place, placed });
  }

  async #survey(): Promise<MountSurvey> {
    const own = await this.#readOwn();
    own.layers ??= await this.#searchOwn();
    let { count } = own.layers;
    const placed = new PlacedMounts();
    const layers = new OverlayLayers();
    for (const table of await readOtherMounts()) {
      await searchThrough(table, placed.search(table, own.place));
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

  async #searchOwn(): Promise<{ found: OverlayLayers; count: number }> {
    const { entries, count } = await overlaysOf(await readOwnMounts());
    const found = new OverlayLayers();
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
  readonly #layers: readonly OverlayLayers[];

  constructor(
    root: HeldRoot,
    found: { count: number; placed: readonly PlacedMounts[]; layers: readonly OverlayLayers[] },
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
