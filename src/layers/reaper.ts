import { constants, existsSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Checked } from '../arguments.ts';
import { toSnapshotError } from '../errors.ts';
import { deleteEntry } from '../linux/delete.ts';
import { Descriptors } from '../linux/descriptors.ts';
import { errnoOf, ignoreMissing, isGone } from '../linux/errno.ts';
import { cString } from '../linux/foreign.ts';
import { openDirectoryBeneath } from '../linux/file-calls.ts';
import { close, fsync, open } from '../linux/fs-promises.ts';
import { findUse, readAllMounts } from '../linux/mountinfo.ts';
import type { RemovalJournal } from '../metadata/removal-journal.ts';
import type { Removal } from '../metadata/rows.ts';
import type { CleanupOptions, CleanupResult } from '../snapshot.ts';
import type { HeldRoot } from './held-root.ts';
import type { Layout } from './layout.ts';
import { isInOverlay } from './overlay-use.ts';
import { DirectoryLock } from './directory-lock.ts';

/** How long the removal journal may keep what has been deleted, in milliseconds: one sync for all of a while. */
const SETTLE_MS = 1000;

/** How long a deletion waits for the lock of its directory, in milliseconds. */
const PATIENCE_MS = 2000;

/** How many are deleted at a time in the background. */
const LATER_GROUP = 16;

/**
 * Deletes the directories that the removal journal names, and nothing else: never what is mounted or used by a live
 * overlay, never through a mount or a symbolic link. An entry leaves the journal only after a sync.
 */
export class Reaper {
  readonly #layout: Layout;
  readonly #journal: RemovalJournal;
  readonly #root: HeldRoot;
  readonly #deleted = new Map<string, Removal>();
  readonly #later: Removal[] = [];
  #reapingLater = false;
  readonly #running = new Set<Promise<unknown>>();
  #timer: NodeJS.Timeout | undefined;
  #settling: Promise<void> = Promise.resolve();
  readonly #closing = new AbortController();

  constructor(layout: Layout, journal: RemovalJournal, root: HeldRoot) {
    this.#root = root;
    this.#layout = layout;
    this.#journal = journal;
  }

  /** Tries to delete what a removal names. What has to wait stays in the journal. @returns why it has to, if so */
  reap(removal: Removal): Promise<string | undefined> {
    return this.#track(this.#reap(removal));
  }

  /** Tries it in the background, after all that was to be deleted later before. */
  reapLater(...removals: readonly Removal[]): void {
    this.#later.push(...removals);
    if (!this.#reapingLater) void this.#reapAllLater();
  }

  /** Deletes everything in the journal that can be deleted now, and what dead processes left of their copies. */
  async cleanup(options: Checked<CleanupOptions>): Promise<CleanupResult> {
    // All of it is in the journal. What is removed from now on is not waited for, or this might never end.
    const later = this.#later.splice(0);
    await Promise.allSettled(this.#running);
    try {
      return await this.#track(this.#sweep(options));
    } catch (error) {
      this.reapLater(...later);
      throw error;
    }
  }

  /** Goes on, in the background, with what was interrupted. */
  resume(): void {
    const { signal } = this.#closing;
    // What cannot be done now is for the next cleanup, which tells why.
    setImmediate(
      () =>
        signal.aborted || void this.#track(this.#sweep({ signal, onProgress: undefined })).catch(() => {}),
    );
  }

  /** Syncs everything that has been deleted so far, and takes it out of the journal. */
  settle(): Promise<void> {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    // One that is under way may have taken over what this caller waits for.
    const settling = Promise.allSettled([this.#settling]).then(() => this.#settleRest());
    this.#settling = settling;
    return settling;
  }

  async #settleRest(): Promise<void> {
    const removals = [...this.#deleted.values()];
    if (removals.length === 0) return;
    this.#deleted.clear();
    const snapshots = await open(this.#layout.snapshots, constants.O_RDONLY | constants.O_DIRECTORY);
    try {
      await fsync(snapshots);
      for (const { id, part } of removals) {
        if (part === 'work') await this.#syncDirectory(id);
      }
    } finally {
      await close(snapshots);
    }
    await this.#journal.forget(removals);
  }

  /** Waits for the deletions under way, and settles them as far as the store lets it. */
  async close(): Promise<void> {
    this.#closing.abort();
    await this.#quiet();
    // What cannot be settled now stays in the journal, and is found deleted by the next cleanup.
    await this.settle().catch(() => {});
  }

  async #quiet(): Promise<void> {
    while (this.#running.size > 0) await Promise.allSettled(this.#running);
  }

  #track<T>(running: Promise<T>): Promise<T> {
    const tracked = running.finally(() => this.#running.delete(tracked));
    this.#running.add(tracked);
    return tracked;
  }

  async #sweep({ signal, onProgress }: Checked<CleanupOptions>): Promise<CleanupResult> {
    const deferred: { path: string; reason: string }[] = [];
    let removed = 0;
    let looked = 0;
    for (const id of this.#journal.reservations()) {
      const reason = await this.#takeAbandoned(id);
      if (reason !== undefined) deferred.push({ path: this.#layout.directory(id), reason });
    }
    const total = onProgress === undefined ? 0 : this.#journal.pendingRemovals();
    for (
      let after = 0, page = this.#journal.removals(after);
      page.length > 0;
      page = this.#journal.removals(after)
    ) {
      for (const removal of page) {
        signal?.throwIfAborted();
        onProgress?.({ done: looked, total: Math.max(looked, total) });
        looked += 1;
        after = removal.id;
        const reason = await this.#reap(removal, signal);
        if (reason === undefined) removed += 1;
        else deferred.push({ path: this.#path(removal), reason });
      }
    }
    await this.settle();
    // The last one may have been given up halfway.
    signal?.throwIfAborted();
    return { removed, deferred };
  }

  /**
   * Journals what a dead process left of a copy as to be deleted. Only the one who has its lock may: a copy that is
   * alive is locked from before its reservation can be seen until after it has become a snapshot.
   */
  async #takeAbandoned(id: number): Promise<string | undefined> {
    let reservation: DirectoryLock | undefined;
    try {
      reservation = DirectoryLock.take(this.#layout, id);
      if (reservation !== undefined) await this.#journal.abandon(id);
      return undefined;
    } catch (error) {
      if (errnoOf(error) !== 'ENOENT') return toSnapshotError(error, `taking over the copy ${id}`).message;
      // It died before its directory was durable.
      await this.#journal.abandon(id);
      return undefined;
    } finally {
      reservation?.release();
    }
  }

  async #reapAllLater(): Promise<void> {
    const { signal } = this.#closing;
    this.#reapingLater = true;
    while (this.#later.length > 0 && !signal.aborted) {
      // Those of a group share a look at all mounts. What has to wait is for the next cleanup, which tells why.
      const group = this.#later.splice(0, LATER_GROUP);
      await this.#track(Promise.all(group.map((removal) => this.#reap(removal, signal))));
    }
    this.#reapingLater = false;
  }

  #path({ id, part }: Removal): string {
    return part === 'all' ? this.#layout.directory(id) : this.#layout.work(id);
  }

  async #syncDirectory(id: number): Promise<void> {
    const flags = constants.O_RDONLY | constants.O_DIRECTORY | constants.O_NOFOLLOW;
    const fd = await open(this.#layout.directory(id), flags).catch(ignoreMissing);
    if (fd === undefined) return;
    try {
      await fsync(fd);
    } finally {
      await close(fd);
    }
  }

  async #reap(removal: Removal, signal?: AbortSignal): Promise<string | undefined> {
    try {
      const lock = await this.#lock(removal.id);
      if (lock === 'taken') return 'it is being mounted, committed, copied or deleted by somebody else';
      try {
        if (!this.#journal.isDeleting(removal)) return undefined;
        const use = await this.#findUse(removal);
        if (use !== undefined) return use;
        this.#root.check();
        await this.#delete(removal, signal);
      } finally {
        lock?.release();
      }
      this.#deleted.set(`${removal.id} ${removal.part}`, removal);
      this.#timer ??= setTimeout(() => void this.settle().catch(() => {}), SETTLE_MS).unref();
      return undefined;
    } catch (error) {
      return toSnapshotError(error, `deleting ${this.#path(removal)}`).message;
    }
  }

  /**
   * Takes the lock of a directory that is to be deleted, so that nobody mounts it meanwhile. Waits a little: whoever has
   * it is about to find its snapshot removed, or deletes it too.
   *
   * @returns `undefined` if there is no directory to lock
   */
  async #lock(id: number): Promise<DirectoryLock | 'taken' | undefined> {
    const until = performance.now() + PATIENCE_MS;
    try {
      for (;;) {
        const lock = DirectoryLock.take(this.#layout, id);
        if (lock !== undefined) return lock;
        if (performance.now() > until) return 'taken';
        await sleep(5);
      }
    } catch (error) {
      if (isGone(error)) return undefined;
      throw error;
    }
  }

  /** Says what uses a directory that is to be deleted, if anything does that can be found out about. */
  async #findUse(removal: Removal): Promise<string | undefined> {
    const use = findUse(await readAllMounts(), this.#path(removal));
    if (use !== undefined) return use;
    const { id } = removal;
    return existsSync(this.#layout.fs(id)) && (await isInOverlay(this.#layout, id)) === true
      ? 'an overlay that is mounted elsewhere, or detached, uses it'
      : undefined;
  }

  async #delete({ id, part }: Removal, signal?: AbortSignal): Promise<void> {
    const name = String(id);
    using opened = new Descriptors();
    try {
      const snapshots = opened.add(openDirectoryBeneath(this.#root.fd, cString('snapshots')));
      if (part === 'all') {
        await deleteEntry(snapshots, Buffer.from(name), signal);
        return;
      }
      const directory = opened.add(openDirectoryBeneath(snapshots, cString(name)));
      await deleteEntry(directory, Buffer.from('work'), signal);
    } catch (error) {
      ignoreMissing(error);
    }
  }
}
