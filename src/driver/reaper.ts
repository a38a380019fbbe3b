import {
  chmodSync,
  close,
  closeSync,
  constants,
  fsync,
  open,
  openSync,
  readdir,
  rmdir,
  unlink,
} from 'node:fs';
import { promisify } from 'node:util';
import { SnapshotError, toSnapshotError } from '../errors.ts';
import { FileStatus, cString, openDirectory, openDirectoryBeneath } from '../linux/libc.ts';
import { type Mounts, allMounts, findUse } from '../linux/mountinfo.ts';
import { errnoOf, fdPath, isDirectory } from '../linux/tree.ts';
import type { Removal } from '../metadata/reader.ts';
import type { CleanupResult } from '../snapshot.ts';
import type { Layout } from './layout.ts';

const fsyncOf = promisify(fsync);
const closeOf = promisify(close);
const openOf = promisify(open);
const readdirOf = promisify(readdir);
const rmdirOf = promisify(rmdir);
const unlinkOf = promisify(unlink);

const O_PATH = 0o10000000;

/** How many files are unlinked at a time. */
const PARALLEL = 64;

/** How long the removal journal may keep what has been deleted, in milliseconds: one sync for all of a while. */
const SETTLE_MS = 1000;

/** What the reaper needs of the metadata. */
export interface Journal {
  /** Whether this is journalled as to be deleted, now. */
  isDeleting(removal: Removal): boolean;
  /** What is journalled as to be deleted, after an id. */
  removals(afterId: number): Removal[];
  /** Takes out of the journal, durably, what has been deleted. */
  forget(removals: readonly Removal[]): Promise<void>;
}

/**
 * Deletes the directories that the removal journal names, and nothing else: never what is mounted or used by a live
 * overlay, never through a mount or a symbolic link. An entry leaves the journal only after a sync.
 */
export class Reaper {
  readonly #layout: Layout;
  readonly #journal: Journal;
  readonly #deleted = new Map<string, Removal>();
  readonly #running = new Set<Promise<unknown>>();
  #timer: NodeJS.Timeout | undefined;
  #nextLook: Promise<readonly Mounts[]> | undefined;

  constructor(layout: Layout, journal: Journal) {
    this.#layout = layout;
    this.#journal = journal;
  }

  /** Tries to delete what a removal names. What has to wait stays in the journal. @returns why it has to, if so */
  reap(removal: Removal): Promise<string | undefined> {
    const reaping = this.#reap(removal);
    this.#running.add(reaping);
    return reaping.finally(() => this.#running.delete(reaping));
  }

  /** Deletes everything in the journal that can be deleted now. */
  async cleanup(): Promise<CleanupResult> {
    await this.#quiet();
    const deferred: { path: string; reason: string }[] = [];
    let removed = 0;
    for (
      let after = 0, page = this.#journal.removals(after);
      page.length > 0;
      page = this.#journal.removals(after)
    ) {
      for (const removal of page) {
        after = removal.id;
        const reason = await this.#reap(removal);
        if (reason === undefined) removed += 1;
        else deferred.push({ path: this.#path(removal), reason });
      }
    }
    await this.settle();
    return { removed, deferred };
  }

  /** Syncs what has been deleted and takes it out of the journal. */
  async settle(): Promise<void> {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    const removals = [...this.#deleted.values()];
    if (removals.length === 0) return;
    this.#deleted.clear();
    const snapshots = await openOf(this.#layout.snapshots, constants.O_RDONLY | constants.O_DIRECTORY);
    try {
      await fsyncOf(snapshots);
      for (const { id, part } of removals) {
        if (part === 'work') await this.#syncDirectory(id);
      }
    } finally {
      await closeOf(snapshots);
    }
    await this.#journal.forget(removals);
  }

  /** Waits for the deletions under way, and settles them as far as the store lets it. */
  async close(): Promise<void> {
    await this.#quiet();
    // What cannot be settled now stays in the journal, and is found deleted by the next cleanup.
    await this.settle().catch(() => {});
  }

  async #quiet(): Promise<void> {
    while (this.#running.size > 0) await Promise.allSettled(this.#running);
  }

  /** The mounts of now. Removals that ask in the same moment share one look, which is made after they have asked. */
  #look(): Promise<readonly Mounts[]> {
    this.#nextLook ??= Promise.resolve().then(() => {
      this.#nextLook = undefined;
      return allMounts();
    });
    return this.#nextLook;
  }

  #path({ id, part }: Removal): string {
    return part === 'all' ? this.#layout.directory(id) : this.#layout.work(id);
  }

  async #syncDirectory(id: number): Promise<void> {
    let fd: number;
    try {
      fd = await openOf(
        this.#layout.directory(id),
        constants.O_RDONLY | constants.O_DIRECTORY | constants.O_NOFOLLOW,
      );
    } catch (error) {
      if (errnoOf(error) === 'ENOENT') return;
      throw error;
    }
    try {
      await fsyncOf(fd);
    } finally {
      await closeOf(fd);
    }
  }

  async #reap(removal: Removal): Promise<string | undefined> {
    try {
      if (!this.#journal.isDeleting(removal)) return undefined;
      const use = findUse(await this.#look(), this.#path(removal));
      if (use !== undefined) return use;
      await this.#delete(removal);
      this.#deleted.set(`${removal.id} ${removal.part}`, removal);
      this.#timer ??= setTimeout(() => void this.settle().catch(() => {}), SETTLE_MS).unref();
      return undefined;
    } catch (error) {
      return toSnapshotError(error, `deleting ${this.#path(removal)}`).message;
    }
  }

  async #delete({ id, part }: Removal): Promise<void> {
    const name = String(id);
    const snapshots = openDirectory(cString(this.#layout.snapshots));
    try {
      if (part === 'all') {
        await deleteEntry(snapshots, Buffer.from(name));
        return;
      }
      const directory = openDirectoryBeneath(snapshots, cString(name));
      try {
        await deleteEntry(directory, Buffer.from('work'));
      } finally {
        await closeOf(directory);
      }
    } catch (error) {
      if (errnoOf(error) !== 'ENOENT') throw error;
    } finally {
      await closeOf(snapshots);
    }
  }
}

function at(dir: number, entry: Buffer): Buffer {
  return Buffer.concat([Buffer.from(`${fdPath(dir)}/`), entry]);
}

/**
 * Deletes what is in a directory under a name, with all below it. Every directory is entered through a descriptor of
 * the one above it, so that whatever is put in the way meanwhile, nothing outside is reached.
 */
async function deleteEntry(parent: number, name: Buffer): Promise<void> {
  const levels: { fd: number; name: Buffer; above: number; directories: Buffer[] }[] = [];
  const enter = async (above: number, directory: Buffer): Promise<void> => {
    const fd = openForDeletion(above, directory);
    const level = { fd, name: directory, above, directories: [] as Buffer[] };
    levels.push(level);
    const files: Buffer[] = [];
    for (const entry of await readdirOf(fdPath(fd), { withFileTypes: true, encoding: 'buffer' })) {
      (entry.isDirectory() ? level.directories : files).push(entry.name);
    }
    for (let from = 0; from < files.length; from += PARALLEL) {
      await Promise.all(files.slice(from, from + PARALLEL).map((file) => unlessGone(unlinkOf(at(fd, file)))));
    }
  };
  const status = new FileStatus();
  if (!status.read(parent, cString(name))) return;
  if (!isDirectory(status.mode)) {
    await unlessGone(unlinkOf(at(parent, name)));
    return;
  }
  try {
    await unlessGone(enter(parent, name));
    for (let level = levels.at(-1); level !== undefined; level = levels.at(-1)) {
      const next = level.directories.pop();
      if (next !== undefined) {
        await unlessGone(enter(level.fd, next));
        continue;
      }
      levels.pop();
      await closeOf(level.fd);
      await unlessGone(rmdirOf(at(level.above, level.name)));
    }
  } finally {
    for (const { fd } of levels) await closeOf(fd);
  }
}

/** Opens a directory, even one of mode 000 such as overlayfs's own `work/work`, which only root could enter. */
function openForDeletion(parent: number, name: Buffer): number {
  const file = cString(name);
  try {
    return openDirectoryBeneath(parent, file);
  } catch (error) {
    if (errnoOf(error) === 'EXDEV') {
      throw new SnapshotError('FAILED_PRECONDITION', `something is mounted on ${name.toString()}`, {
        cause: error,
      });
    }
    if (errnoOf(error) !== 'EACCES') throw error;
  }
  const fd = openSync(
    Buffer.concat([Buffer.from(`${fdPath(parent)}/`), name]),
    O_PATH | constants.O_NOFOLLOW,
  );
  try {
    chmodSync(fdPath(fd), 0o700);
  } finally {
    closeSync(fd);
  }
  return openDirectoryBeneath(parent, file);
}

async function unlessGone(deletion: Promise<void>): Promise<void> {
  try {
    await deletion;
  } catch (error) {
    if (errnoOf(error) !== 'ENOENT') throw error;
  }
}
