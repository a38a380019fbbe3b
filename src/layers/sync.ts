import { readFileSync } from 'node:fs';
import { SnapshotError } from '../errors.ts';
import { Descriptors } from '../linux/descriptors.ts';
import { errnoOf, unlessGone } from '../linux/errno.ts';
import { syncFilesystem, syncFilesystemNow } from '../linux/file-calls.ts';
import { fsync } from '../linux/fs-promises.ts';
import { inSlices } from '../linux/slices.ts';
import { FileStatus, isDirectory, isRegular, isWhiteout } from '../linux/file-status.ts';
import { openToSync } from '../linux/regular-file.ts';
import type { RowReader } from '../metadata/row-reader.ts';
import type { HeldRoot } from './held-root.ts';
import type { SnapshotsView } from './snapshots-view.ts';

/**
 * A layer of up to so many files is synced file by file if the machine has much to write: syncfs(2) would wait for
 * that.
 */
const FEW_INODES = 64;

/** How many files of it are open at a time. */
const OPEN_FILES = 16;

/** What counts as much, in bytes. */
const MUCH_BYTES = 64 * 1024 * 1024;

interface LayerSyncOptions {
  readonly root: HeldRoot;
  readonly snapshotsView: SnapshotsView;
  /** Whether the filesystem has an ordered journal. */
  readonly ordered: boolean;
  readonly reader: RowReader;
}

/**
 * Makes the contents of layers durable. Calls that wait at the same moment share one syncfs(2). That is called on the
 * descriptor of `snapshots/`, which stays open: syncfs(2) reports the disk errors since a descriptor was opened.
 */
export class LayerSync {
  readonly #options: LayerSyncOptions;
  readonly #fd: number;
  #current: Promise<void> = Promise.resolve();
  #next: Promise<void> | undefined;
  /**
   * Layers up to this id, and those in `#lost`, may have lost data. The kernel reports an error only once, so it is
   * kept.
   */
  #lostUpTo = 0;
  readonly #lost = new Set<number>();

  constructor(options: LayerSyncOptions) {
    this.#options = options;
    this.#fd = options.root.snapshots;
  }

  /**
   * Makes the present contents of a layer durable.
   *
   * @param inodes how many the layer has
   * @throws {SnapshotError} DATA_LOSS if the disk fails, or an earlier sync failed that may have been for data of this
   *   layer
   * @throws another system error if the layer cannot be synced
   */
  async sync(id: number, inodes: number): Promise<void> {
    this.#checkKept(id);
    try {
      const few = inodes <= FEW_INODES && this.#options.ordered && bytesToWrite() >= MUCH_BYTES;
      if (few && (await this.#syncEach(id))) return;
      await this.#syncAll();
    } catch (error) {
      throw errnoOf(error) === 'EIO' ? lost(id, error) : error;
    }
    this.#checkKept(id);
  }

  /** The same as `sync`, without interruption: for a layer that one transaction both makes and commits. */
  syncNow(id: number, inodes: number): void {
    // An empty layer is synced together with its directory.
    if (inodes > 1) syncFilesystemNow(this.#fd);
    this.#checkKept(id);
  }

  #checkKept(id: number): void {
    if (id > this.#lostUpTo && !this.#lost.has(id)) return;
    throw lost(id);
  }

  /** All who call this before a sync begins share it. One that is under way may have missed what they wrote. */
  #syncAll(): Promise<void> {
    if (this.#next === undefined) {
      this.#next = this.#syncAfter(this.#current);
      this.#current = this.#next.catch(() => {});
    }
    return this.#next;
  }

  async #syncAfter(before: Promise<void>): Promise<void> {
    await before;
    this.#next = undefined;
    try {
      await syncFilesystem(this.#fd);
    } catch (error) {
      this.#lostUpTo = this.#highWater();
      throw error;
    }
  }

  #highWater(): number {
    try {
      return this.#options.reader.highWater();
    } catch {
      return Number.MAX_SAFE_INTEGER;
    }
  }

  /**
   * Syncs each file of a small layer by itself.
   *
   * @returns whether it did: fifos, sockets and devices cannot be synced
   */
  async #syncEach(id: number): Promise<boolean> {
    using opened = new Descriptors();
    const found = new FileStatus();
    let every = true;
    let count = 0;
    await inSlices(this.#options.snapshotsView.walk(id), async (entry) => {
      const { status } = entry;
      const whiteout = isWhiteout(status);
      count += whiteout ? 0 : 1;
      every &&= count <= FEW_INODES && (whiteout || isDirectory(status.mode) || isRegular(status.mode));
      if (!every || whiteout) return;
      const fd = unlessGone(() => openToSync(entry, found));
      if (fd !== undefined) opened.add(fd);
      if (opened.all.length === OPEN_FILES) await this.#syncOpened(id, opened);
    });
    if (every) await this.#syncOpened(id, opened);
    return every;
  }

  /** Syncs open files of a layer, and closes them. */
  async #syncOpened(id: number, opened: Descriptors): Promise<void> {
    for (const outcome of await Promise.allSettled(opened.all.map((fd) => fsync(fd)))) {
      if (outcome.status === 'fulfilled') continue;
      this.#lost.add(id);
      throw outcome.reason;
    }
    opened[Symbol.dispose]();
  }
}

/** How much waits to be written to any disk of this machine, or is being written, in bytes. */
function bytesToWrite(): number {
  const waiting = readFileSync('/proc/meminfo', 'utf8').matchAll(/^(?:Dirty|Writeback):\s*(\d+) kB$/gm);
  return Array.from(waiting, ([, kibibytes]) => Number(kibibytes) * 1024).reduce(
    (sum, bytes) => sum + bytes,
    0,
  );
}

function lost(id: number, cause?: unknown): SnapshotError {
  return new SnapshotError(
    'DATA_LOSS',
    `the disk failed and may have lost what was written to snapshot ${id}`,
    { cause, hint: 'remove it, check the disk, and build it again' },
  );
}
