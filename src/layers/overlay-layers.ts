import { closeSync, constants, openSync, readlinkSync } from 'node:fs';
import { Descriptors } from '../linux/descriptors.ts';
import { isSystemError } from '../linux/errno.ts';
import { openDirectoryInRoot } from '../linux/file-calls.ts';
import { FileStatus } from '../linux/file-status.ts';
import { O_PATH, cString } from '../linux/foreign.ts';
import {
  type MountEntry,
  type MountTable,
  eachLine,
  parseHead,
  parseLine,
  searchThrough,
} from '../linux/mountinfo.ts';
import { fdPath } from '../linux/tree-walk.ts';
import type { HeldRoot } from './held-root.ts';
import { whereOf } from './placed-mounts.ts';

/*
 * Of an overlay, mountinfo shows the paths of the layers as they were given to the kernel. So these are opened, in the
 * namespace of the mount, and compared by device and inode.
 */

/** An overlay with a layer of the store. */
export interface LayerMount {
  readonly id: number;
  readonly mountPoint: string;
  /** The mount point as a phrase for a message. */
  readonly where: string;
}

/** The overlays in a table, and how many mounts are in it. */
export interface Overlays {
  readonly entries: readonly MountEntry[];
  readonly count: number;
}

/** Finds the overlays in a table. */
export async function overlaysOf(table: MountTable): Promise<Overlays> {
  const entries: MountEntry[] = [];
  let count = 0;
  const look = (line: string): void => {
    count += 1;
    const entry = parseHead(line).isOverlay ? parseLine(line) : undefined;
    if (entry !== undefined) entries.push(entry);
  };
  await searchThrough(table, eachLine(table, look));
  return { entries, count };
}

/** More levels than any path has: it ends a walk that never comes to the root directory. */
const MAX_LEVELS = 2048;

/** Finds the layers of overlays by device and inode. */
export class OverlayLayers {
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

/** Opens the directory at a path and runs `body` on it. @returns `undefined` if the directory cannot be opened */
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
