import { closeSync, constants, openSync, readFileSync } from 'node:fs';
import { SnapshotError } from '../errors.ts';
import { Descriptors } from '../linux/descriptors.ts';
import { unlessGone } from '../linux/errno.ts';
import { syncFilesystem, syncFilesystemNow } from '../linux/file-calls.ts';
import { fsync } from '../linux/fs-promises.ts';
import { inSlices } from '../linux/slices.ts';
import { isDirectory, isRegular, isWhiteout } from '../linux/status.ts';
import { openRegular } from '../linux/regular-file.ts';
import { walkTree } from '../linux/tree.ts';
import type { RowReader } from '../metadata/row-reader.ts';
import type { Layout } from './layout.ts';

/** Up to how many files are synced one by one where much else on the machine waits to be written, in bytes. */
const FEW_INODES = 64;
const MUCH_BYTES = 64 * 1024 * 1024;

/** What the syncing of layers needs to know. */
interface Needs {
  readonly layout: Layout;
  /** Whether the filesystem's journal keeps the order in which things happened. */
  readonly ordered: boolean;
  readonly reader: RowReader;
}

/**
 * Makes the contents of layers durable. All that wait at the same moment share one syncfs(2), on a descriptor that
 * is held all the time, so that no error of the disk since then is missed.
 */
export class LayerSync {
  readonly #needs: Needs;
  readonly #fd: number;
  #current: Promise<void> = Promise.resolve();
  #next: Promise<void> | undefined;
  /** Layers up to this id, and these, may have lost what was written to them: the disk said so, and says so once. */
  #lostUpTo = 0;
  readonly #lost = new Set<number>();

  constructor(needs: Needs) {
    this.#needs = needs;
    this.#fd = openSync(needs.layout.snapshots, constants.O_RDONLY | constants.O_DIRECTORY);
  }

  /**
   * Makes durable what the layer of an id holds now.
   *
   * @throws {SnapshotError} DATA_LOSS if an earlier sync failed that may have been about this layer
   * @throws what the operating system says of a disk that fails
   */
  async sync(id: number, inodes: number): Promise<void> {
    this.#checkKept(id);
    const few = inodes <= FEW_INODES && this.#needs.ordered && bytesToWrite() >= MUCH_BYTES;
    if (few && (await this.#syncEach(id))) return;
    await this.#syncAll();
    this.#checkKept(id);
  }

  /** Does the same on the spot, for a layer that a transaction both makes and commits. */
  syncNow(id: number, inodes: number): void {
    // With nothing in it, it is synced together with its directory.
    if (inodes > 1) syncFilesystemNow(this.#fd);
    this.#checkKept(id);
  }

  close(): void {
    closeSync(this.#fd);
  }

  #checkKept(id: number): void {
    if (id > this.#lostUpTo && !this.#lost.has(id)) return;
    throw new SnapshotError(
      'DATA_LOSS',
      `the disk failed and may have lost what was written to snapshot ${id}`,
      {
        hint: 'remove it, see to the disk, and build it anew',
      },
    );
  }

  /** One call for all that ask for it before it begins: one that is under way may have missed what they wrote. */
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
      return this.#needs.reader.highWater();
    } catch {
      return Number.MAX_SAFE_INTEGER;
    }
  }

  /** Syncs each file of a small layer by itself. Whether it could: some kinds of files cannot be synced. */
  async #syncEach(id: number): Promise<boolean> {
    using opened = new Descriptors();
    let every = true;
    await inSlices(walkTree(this.#needs.layout.fs(id)), ({ handle, status }) => {
      const whiteout = isWhiteout(status);
      every &&= whiteout || isDirectory(status.mode) || isRegular(status.mode);
      if (!every || whiteout || opened.all.length > FEW_INODES) return;
      const fd = unlessGone(() => openRegular(handle.subarray(0, -1)));
      if (fd !== undefined) opened.add(fd);
    });
    if (!every || opened.all.length > FEW_INODES) return false;
    for (const outcome of await Promise.allSettled(opened.all.map((fd) => fsync(fd)))) {
      if (outcome.status === 'fulfilled') continue;
      this.#lost.add(id);
      throw outcome.reason;
    }
    return true;
  }
}

/** How much on this machine waits to be written to any disk, or is being written, in bytes. */
function bytesToWrite(): number {
  const waiting = readFileSync('/proc/meminfo', 'utf8').matchAll(/^(?:Dirty|Writeback):\s*(\d+) kB$/gm);
  return Array.from(waiting, ([, kibibytes]) => Number(kibibytes) * 1024).reduce(
    (sum, bytes) => sum + bytes,
    0,
  );
}
