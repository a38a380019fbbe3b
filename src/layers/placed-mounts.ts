import { readlinkSync } from 'node:fs';
import { FileStatus } from '../linux/file-status.ts';
import {
  type MountTable,
  eachLine,
  findMount,
  mountPointOf,
  parseHead,
  parseLine,
} from '../linux/mountinfo.ts';
import { fdPath } from '../linux/tree-walk.ts';
import { quote } from '../quote.ts';
import type { HeldRoot } from './held-root.ts';

/*
 * The kernel names a bind mount by its filesystem and the path in that, which is exact in every namespace.
 */

/** A mount on a directory of the store, or a bind mount of one. */
export interface PlacedMount {
  /** The path of the directory below `snapshots/`. */
  readonly below: string;
  readonly mountPoint: string;
  readonly what: string;
}

/** Where `snapshots/` is: the device of its filesystem as in mountinfo, and its path in that. */
export interface Place {
  readonly device: string;
  readonly path: string;
}

/** Where `snapshots/` is, going by the mount that it is reached by. */
export function placeOf(root: HeldRoot, table: MountTable): Place | undefined {
  if (!root.has('snapshots')) return undefined;
  const status = new FileStatus();
  status.readOpen(root.snapshots);
  const entry = findMount(table, status.mountId);
  const rest = entry && pathBelow(readlinkSync(fdPath(root.snapshots)), entry.mountPoint);
  if (entry === undefined || rest === undefined) return undefined;
  return { device: entry.device, path: join(entry.root, rest) };
}

/** The bind mounts of directories below `snapshots/`, and the mounts on them. */
export class PlacedMounts {
  readonly mountPoints: PlacedMount[] = [];
  /** By the first part of the path below `snapshots/`. */
  readonly #byDirectory = new Map<string, PlacedMount[]>();

  /** Adds those in a table. Yields to give an opportunity to end a slice. */
  *search(table: MountTable, place: Place | undefined): Generator<undefined, void, undefined> {
    if (place === undefined) return;
    /** The mounts that show `snapshots/`, or something in it: where, and the path of that below `snapshots/`. */
    const shown = new Map<number, { readonly at: string; readonly below: string }>();
    yield* eachLine(table, (line) => {
      const entry = parseHead(line).device === place.device ? parseLine(line) : undefined;
      if (entry === undefined) return;
      const { id, root, mountPoint } = entry;
      const rest = pathBelow(place.path, root);
      const below = pathBelow(root, place.path);
      if (rest !== undefined) {
        shown.set(id, { at: join(mountPoint, rest), below: '' });
      } else if (below !== undefined) {
        shown.set(id, { at: mountPoint, below });
        this.#add({ below, mountPoint, what: `it is mounted at ${whereOf(table.process, mountPoint)}` });
      }
    });
    yield* eachLine(table, (line) => {
      const parent = shown.get(parseHead(line).parentId);
      if (parent === undefined) return;
      const mountPoint = mountPointOf(line);
      const rest = pathBelow(mountPoint, parent.at);
      const below = rest === undefined || parent.below === '' ? rest : join(parent.below, rest);
      if (below === undefined || below === '') return;
      const mount = { below, mountPoint, what: `${whereOf(table.process, mountPoint)} is a mount point` };
      this.mountPoints.push(mount);
      this.#add(mount);
    });
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

/** The mount point of a mount as people can find it. */
export function whereOf(process: number | undefined, mountPoint: string): string {
  return `${quote(mountPoint)}${process === undefined ? '' : ' in another mount namespace'}`;
}

/** The path from one directory to another within it; `undefined` if it is not within it. */
export function pathBelow(path: string, directory: string): string | undefined {
  if (path === directory) return '';
  const prefix = directory === '/' ? '/' : `${directory}/`;
  return path.startsWith(prefix) ? path.slice(prefix.length) : undefined;
}

function join(directory: string, rest: string): string {
  if (rest === '') return directory;
  return directory === '/' ? `/${rest}` : `${directory}/${rest}`;
}
