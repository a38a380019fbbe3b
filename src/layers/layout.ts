import { join, relative, sep } from 'node:path';

/**
 * The paths in a store:
 *
 *     metadata.db                 the metadata
 *     metadata.db-reserve         disk space that makes removals possible when the disk is full
 *     metadata.db-restoring       a new database that is about to replace the present one
 *     backups/                    automatic copies of the database
 *     snapshots/<id>/fs           the layer of a snapshot
 *     snapshots/<id>/work         for overlayfs, while the snapshot is active
 *     lost+found/                 what was set aside
 *     run/                        where the trees of commands are mounted, each seen by its command alone
 */
export class Layout {
  readonly root: string;
  readonly database: string;
  readonly spareSpace: string;
  readonly restoring: string;
  readonly snapshots: string;
  readonly lostAndFound: string;
  readonly run: string;

  constructor(root: string) {
    this.root = root;
    this.database = join(root, 'metadata.db');
    this.spareSpace = join(root, 'metadata.db-reserve');
    this.restoring = join(root, 'metadata.db-restoring');
    this.snapshots = join(root, 'snapshots');
    this.lostAndFound = join(root, 'lost+found');
    this.run = join(root, 'run');
  }

  /** The directory of a snapshot. */
  directory(id: number): string {
    return `${this.snapshots}/${id}`;
  }

  /** The layer of a snapshot. */
  fs(id: number): string {
    return `${this.snapshots}/${id}/fs`;
  }

  /** The directory that overlayfs needs to write to the layer of a snapshot. */
  work(id: number): string {
    return `${this.snapshots}/${id}/work`;
  }

  /** The id of the snapshot that a path belongs to, if any. The path is absolute or relative to the root. */
  idOf(path: string): number | undefined {
    const inRoot = path.startsWith(sep) ? relative(this.root, path) : join(path);
    const [, id] = /^snapshots\/([1-9]\d{0,15})(?:\/|$)/.exec(inRoot) ?? [];
    return id === undefined ? undefined : Number(id);
  }
}
