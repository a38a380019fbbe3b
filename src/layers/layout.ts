import { join, relative, sep } from 'node:path';

/**
 * Where things are under a root:
 *
 *     metadata.db                 the metadata
 *     metadata.db-reserve         disk space for the removals that free some when the disk is full
 *     snapshots/<id>/fs           the layer
 *     snapshots/<id>/work         overlayfs's own, while the snapshot is active
 *     metadata.db-restoring       a new database that is being put in the place of another
 *     backups/                    copies of the database, made by themselves
 *     lost+found/                 what was set aside
 */
export class Layout {
  readonly root: string;
  readonly database: string;
  readonly spareSpace: string;
  readonly restoring: string;
  readonly snapshots: string;
  readonly lostAndFound: string;

  readonly #shown: string;

  /** Takes the path of the root, and the one to show for it, if that is another. */
  constructor(root: string, shown: string = root) {
    this.root = root;
    this.#shown = shown;
    this.database = join(root, 'metadata.db');
    this.spareSpace = join(root, 'metadata.db-reserve');
    this.restoring = join(root, 'metadata.db-restoring');
    this.snapshots = join(root, 'snapshots');
    this.lostAndFound = join(root, 'lost+found');
  }

  /** The directory of a snapshot. */
  directory(id: number): string {
    return `${this.snapshots}/${id}`;
  }

  /** The layer of a snapshot. */
  fs(id: number): string {
    return `${this.snapshots}/${id}/fs`;
  }

  /** The directory that overlayfs needs beside a layer to write to it. */
  work(id: number): string {
    return `${this.snapshots}/${id}/work`;
  }

  /** A path below the root as people know it. */
  show(path: string): string {
    return path.startsWith(this.root) ? `${this.#shown}${path.slice(this.root.length)}` : path;
  }

  /** The id of the snapshot that a path belongs to, given absolute or from the root; `undefined` if none. */
  idOf(path: string): number | undefined {
    const below = path.startsWith(sep) ? relative(this.root, path) : join(path);
    const [, id] = /^snapshots\/([1-9]\d{0,15})(?:\/|$)/.exec(below) ?? [];
    return id === undefined ? undefined : Number(id);
  }
}
