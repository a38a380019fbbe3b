import { setTimeout as sleep } from 'node:timers/promises';
import type { Checked } from '../arguments.ts';
import { toSnapshotError } from '../errors.ts';
import { guarded, warn } from '../guarded.ts';
import { deleteEntry } from '../linux/delete.ts';
import { Descriptors } from '../linux/descriptors.ts';
import { errnoOf, ignoreGone, ignoreMissing, isGone, unlessGone } from '../linux/errno.ts';
import { close, fsync } from '../linux/fs-promises.ts';
import type { RemovalJournal } from '../metadata/removal-journal.ts';
import type { Removal } from '../metadata/rows.ts';
import { escapeHidden } from '../quote.ts';
import type { CleanupOptions, CleanupResult } from '../snapshot.ts';
import type { HeldRoot } from './held-root.ts';
import type { Layout } from './layout.ts';
import { isInOverlay } from './overlay-use.ts';
import { DirectoryLock } from './directory-lock.ts';
import type { MountGate } from './mount-gate.ts';
import type { StoreMounts } from './store-mounts.ts';

/**
 * How long an entry stays in the journal after its deletion, in milliseconds: deletions within that time share a sync.
 */
const SETTLE_MS = 1000;

/** How long a deletion waits for the lock of its directory, in milliseconds. */
const PATIENCE_MS = 2000;

/** How many removals are carried out at a time in the background. They share one reading of all mounts. */
const GROUP_SIZE = 16;

interface ReaperOptions {
  readonly journal: RemovalJournal;
  readonly root: HeldRoot;
  readonly mounts: StoreMounts;
  readonly gate: MountGate;
}

/**
 * Deletes the directories that the removal journal names, and nothing else. It deletes nothing that is mounted or that
 * a live overlay uses, and follows no mount and no symbolic link. An entry leaves the journal only after a sync, and a
 * removal that has to wait stays in it.
 */
export class Reaper {
  readonly #layout: Layout;
  readonly #journal: RemovalJournal;
  readonly #root: HeldRoot;
  readonly #mounts: StoreMounts;
  readonly #gate: MountGate;
  readonly #deleted = new Map<string, Removal>();
  readonly #later: Removal[] = [];
  #reapsInBackground = false;
  readonly #running = new Set<Promise<unknown>>();
  #timer: NodeJS.Timeout | undefined;
  #settling: Promise<void> = Promise.resolve();
  readonly #closing = new AbortController();

  constructor({ journal, root, mounts, gate }: ReaperOptions) {
    this.#mounts = mounts;
    this.#gate = gate;
    this.#root = root;
    this.#layout = root.layout;
    this.#journal = journal;
  }

  /** Tries to carry out a removal. @returns why it has to wait, or `undefined` if it is done */
  reap(removal: Removal): Promise<string | undefined> {
    return this.#track(this.#reap(removal));
  }

  /** Tries to carry out removals in the background, after those of earlier calls. */
  reapLater(...removals: readonly Removal[]): void {
    this.#later.push(...removals);
    if (!this.#reapsInBackground) void this.#reapInBackground().catch((error: unknown) => warn(error));
  }

  /** Tries to carry out all removals in the journal, and deletes the copies that dead processes have left. */
  async cleanup(options: Checked<CleanupOptions>): Promise<CleanupResult> {
    // They are in the journal too. Removals from now on are not waited for, or this might never end.
    const later = this.#later.splice(0);
    await Promise.allSettled(this.#running);
    try {
      return await this.#track(this.#sweep(options));
    } catch (error) {
      this.reapLater(...later);
      throw error;
    }
  }

  /**
   * Does a cleanup in the background, for what an earlier process has left.
   *
   * @param before removes the rows whose directories are to be deleted too
   */
  resume(before: (signal: AbortSignal) => Promise<void>): void {
    const { signal } = this.#closing;
    const clean = async (): Promise<void> => {
      await before(signal).catch(() => {});
      await this.#sweep({ signal, onProgress: undefined });
    };
    // The next cleanup reports what has to wait.
    const start = guarded(() => {
      if (!signal.aborted) void this.#track(clean()).catch(() => {});
    });
    setImmediate(start);
  }

  /** Syncs everything that has been deleted so far, and takes it out of the journal. */
  settle(): Promise<void> {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    // The one under way may have taken over deletions that this caller waits for.
    const settling = Promise.allSettled([this.#settling]).then(() => this.#settleRest());
    this.#settling = settling;
    return settling;
  }

  /** What cannot be settled stays in the journal. */
  readonly #settleInBackground = guarded(() => void this.settle().catch(() => {}));

  async #settleRest(): Promise<void> {
    const removals = [...this.#deleted.values()];
    if (removals.length === 0) return;
    this.#deleted.clear();
    await fsync(this.#root.snapshots);
    for (const { id, part } of removals) {
      if (part === 'work') await this.#syncDirectory(id);
    }
    await this.#journal.forget(removals);
  }

  /** Ends the deletions under way, and settles what has been deleted, if the store lets it. */
  async close(): Promise<void> {
    this.#closing.abort();
    await this.#quiet();
    // What cannot be settled stays in the journal, and the next cleanup finds it deleted.
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
    let seen = 0;
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
        onProgress?.({ done: seen, total: Math.max(seen, total) });
        seen += 1;
        after = removal.id;
        const reason = await this.#reap(removal, signal);
        if (reason === undefined) removed += 1;
        else deferred.push({ path: this.#path(removal), reason });
      }
    }
    await this.settle();
    // The signal may have interrupted the last one.
    signal?.throwIfAborted();
    return { removed, deferred };
  }

  /**
   * Journals the copy of a dead process as a removal. To do that it has to hold the lock of the directory: a live
   * process holds that from before its reservation can be seen until the copy has become a snapshot.
   *
   * @returns why the copy has to stay, if it has to
   */
  async #takeAbandoned(id: number): Promise<string | undefined> {
    let reservation: DirectoryLock | undefined;
    try {
      reservation = DirectoryLock.take(this.#root, id);
      if (reservation !== undefined) await this.#journal.abandon(id);
      return undefined;
    } catch (error) {
      if (errnoOf(error) !== 'ENOENT') return toSnapshotError(error, `taking over the copy ${id}`).message;
      // There was a crash before its directory was durable.
      await this.#journal.abandon(id);
      return undefined;
    } finally {
      reservation?.release();
    }
  }

  async #reapInBackground(): Promise<void> {
    const { signal } = this.#closing;
    this.#reapsInBackground = true;
    while (this.#later.length > 0 && !signal.aborted) {
      // The next cleanup reports what has to wait.
      const group = this.#later.splice(0, GROUP_SIZE);
      await this.#track(Promise.all(group.map((removal) => this.#reap(removal, signal))));
    }
    this.#reapsInBackground = false;
  }

  #path({ id, part }: Removal): string {
    return part === 'all' ? this.#layout.directory(id) : this.#layout.work(id);
  }

  async #syncDirectory(id: number): Promise<void> {
    const fd = unlessGone(() => this.#root.open(id));
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
        if (use !== undefined) return escapeHidden(use);
        this.#root.check();
        await this.#delete(removal, signal);
      } finally {
        lock?.release();
      }
      this.#deleted.set(`${removal.id} ${removal.part}`, removal);
      this.#timer ??= setTimeout(this.#settleInBackground, SETTLE_MS).unref();
      return undefined;
    } catch (error) {
      return toSnapshotError(error, `deleting ${this.#path(removal)}`).message;
    }
  }

  /**
   * Takes the lock of a directory that is to be deleted, so that nobody mounts it meanwhile. Waits a little: whoever
   * has it is about to find its snapshot removed, or deletes it too.
   *
   * @returns `undefined` if there is no directory to lock
   */
  async #lock(id: number): Promise<DirectoryLock | 'taken' | undefined> {
    const until = performance.now() + PATIENCE_MS;
    try {
      for (;;) {
        const lock = DirectoryLock.take(this.#root, id);
        if (lock !== undefined) return lock;
        if (performance.now() > until) return 'taken';
        await sleep(5);
      }
    } catch (error) {
      if (isGone(error)) return undefined;
      throw error;
    }
  }

  /** @returns what uses a directory that is to be deleted, as far as this process can see */
  async #findUse(removal: Removal): Promise<string | undefined> {
    const { id, part } = removal;
    if (!(await this.#gate.drain())) return 'snapshots of this store are being mounted all the time';
    const use = (await this.#mounts.survey()).findUse(part === 'all' ? `${id}` : `${id}/${part}`);
    if (use !== undefined) return use.what;
    return (await isInOverlay(this.#root, id).catch(ignoreGone)) === true
      ? 'an overlay that is mounted elsewhere, or detached, uses it'
      : undefined;
  }

  async #delete({ id, part }: Removal, signal?: AbortSignal): Promise<void> {
    using opened = new Descriptors();
    try {
      if (part === 'all') {
        await deleteEntry(this.#root.snapshots, Buffer.from(String(id)), signal);
        return;
      }
      const directory = opened.add(this.#root.open(id));
      await deleteEntry(directory, Buffer.from('work'), signal);
    } catch (error) {
      ignoreMissing(error);
    }
  }
}
