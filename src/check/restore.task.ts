import {
  closeSync,
  existsSync,
  fsyncSync,
  lstatSync,
  readFileSync,
  realpathSync,
  renameSync,
  rmSync,
} from 'node:fs';
import type { TaskContext } from '../linux/child.ts';
import { HeldRoot } from '../layers/held-root.ts';
import type { Layout } from '../layers/layout.ts';
import { type Place, placeFor, setAside, writeNote } from '../layers/lost-and-found.ts';
import { SnapshotError, toSnapshotError } from '../errors.ts';
import { createDirectory, moveFile, openDirectoryBeneath } from '../linux/file-calls.ts';
import { FileStatus } from '../linux/file-status.ts';
import { cString } from '../linux/foreign.ts';
import { hasDirectory } from '../linux/plain-file.ts';
import { syncPath } from '../linux/sync-path.ts';
import { listBackups } from '../metadata/backup/files.ts';
import { newestFirst } from '../metadata/backup/newest.ts';
import { FILE_SUFFIXES } from '../metadata/database-files.ts';
import { StoreLock } from '../metadata/store-lock.ts';
import { Inspector } from '../metadata/repair/inspector.ts';
import { plausibleId } from '../metadata/repair/plausible-id.ts';
import { RepairWriter } from '../metadata/repair/repair-writer.ts';
import { copyBackup } from '../metadata/repair/copy-backup.ts';
import type { Rebuilt } from '../metadata/repair/rebuilt.ts';
import { salvage } from '../metadata/repair/salvage.ts';
import { quote } from '../quote.ts';
import { highestIdOnDisk, idsOnDisk } from './ids-on-disk.ts';
import { lookAtUnfinished, removeUnfinished } from './unfinished.ts';

/** What a new database is created from. */
export interface RestoreInput {
  readonly root: string;
  /** A backup (default: the newest automatic one). */
  readonly from: string | undefined;
  /** Use what can be read of the present database, not a backup. */
  readonly salvage: boolean;
}

/** The result of a restoration. */
export interface Restored extends Rebuilt {
  /** The backup that was used; `null` if the old database was salvaged. */
  readonly from: string | null;
  /** Where the old database is now; `null` if there was none. */
  readonly setAside: string | null;
  /** Whether this only finished a restoration that had been interrupted. */
  readonly finished: boolean;
}

/**
 * Replaces a lost or damaged database by a new one. The old one is kept in `lost+found/`; directories are not
 * touched. Run it in a process of its own that has the store open in no other way.
 *
 * @throws {SnapshotError} FAILED_PRECONDITION if the root or the backup is missing, or a process has the store open
 * @throws {SnapshotError} DATA_LOSS if the backup is damaged
 */
export async function restoreDatabase(input: RestoreInput, context: TaskContext): Promise<Restored> {
  const { root } = input;
  if (!existsSync(root))
    throw new SnapshotError('FAILED_PRECONDITION', `there is no directory ${quote(root)}`);
  const held = new HeldRoot(realpathSync(root));
  try {
    // It can name the process, if that is visible here and locks the database as SQLite does.
    checkUnused(held.layout);
    const lock = StoreLock.takeAlone(held.layout.root);
    try {
      return await restoreAlone(held, input, context);
    } finally {
      lock.release();
    }
  } finally {
    held.close();
  }
}

/** Restores a store that nobody has open, or can open meanwhile. */
async function restoreAlone(
  held: HeldRoot,
  input: RestoreInput,
  { scratch }: TaskContext,
): Promise<Restored> {
  const { layout } = held;
  const { root } = layout;
  held.checkPlace();
  // The old database is moved to the one, and no id that the other has is assigned again.
  for (const path of [layout.lostAndFound, layout.snapshots]) hasDirectory(path);
  removeUnfinished(layout);
  const unfinished = lookAtUnfinished(layout, scratch);
  if (unfinished === 'a complete database') {
    return { from: null, snapshots: 0, lost: [], journal: [], setAside: putInPlace(held), finished: true };
  }
  const file = `${layout.database}-restore-${process.pid}`;
  try {
    const from = input.salvage ? null : findBackup(layout, input.from);
    const rebuilt =
      from === null
        ? await salvage({ damaged: layout.database, file, scratch: scratch(), ids: idsOnDisk(held) })
        : await copyBackup(from, file);
    await correctHighWater(held, file, scratch());
    syncPath(file);
    if (unfinished === 'something else') setAsideUnfinished(held);
    // While a file of this name exists, no driver opens the store.
    renameSync(file, layout.restoring);
    syncPath(root);
    return { from, ...rebuilt, setAside: putInPlace(held), finished: false };
  } catch (error) {
    throw toSnapshotError(error, `restoring ${quote(root)}`);
  } finally {
    for (const suffix of ['', '-wal', '-shm']) rmSync(`${file}${suffix}`, { force: true });
  }
}

/** Moves what others have put in the place of a new database to `lost+found/`, with what SQLite would take for its log. */
function setAsideUnfinished(held: HeldRoot): void {
  const { layout } = held;
  for (const suffix of FILE_SUFFIXES) {
    const path = `${layout.restoring}${suffix}`;
    if (lstatSync(path, { throwIfNoEntry: false }) === undefined) continue;
    setAside(
      held,
      path,
      undefined,
      'it was in the place of a new database, and no restoration had put it there',
    );
  }
}

function findBackup(layout: Layout, given: string | undefined): string {
  if (given !== undefined) return given;
  const [newest] = newestFirst(listBackups(layout.database, 'any'));
  if (newest !== undefined) return newest;
  throw new SnapshotError('FAILED_PRECONDITION', `there is no backup beside ${quote(layout.database)}`, {
    hint: 'name one that is kept elsewhere, or use --salvage: what can be read of the present database',
  });
}

/** No id that was ever used may be assigned again, even if the new database does not know it. */
async function correctHighWater(held: HeldRoot, file: string, scratch: string): Promise<void> {
  const writer = await RepairWriter.open(file);
  try {
    const least = Math.max(highestIdOnDisk(held), highWaterOf(held.layout.database, scratch));
    await writer.locked(() => writer.correctHighWater(least));
  } finally {
    writer.close();
  }
}

function highWaterOf(database: string, scratch: string): number {
  try {
    const inspector = Inspector.open(database, () => scratch);
    try {
      return plausibleId(inspector.highWater());
    } finally {
      inspector.close();
    }
  } catch {
    return 0;
  }
}

/**
 * Moves the old database to `lost+found/` and gives the new one its name. The old log goes first: SQLite would apply
 * it to the new database.
 */
function putInPlace(held: HeldRoot): string | null {
  const status = new FileStatus();
  const old = ['', '-wal', '-shm', '-journal'].filter((suffix) =>
    status.read(held.fd, cString(`metadata.db${suffix}`)),
  );
  let place: Place | undefined;
  held.checkPlace();
  if (old.length > 0) {
    place = placeFor(held, undefined);
    const lostAndFound = held.make('lost+found');
    createDirectory(lostAndFound, cString(place.name), 0o700);
    writeNote(held, { what: 'the old database', why: 'it was restored' }, place);
    const directory = openDirectoryBeneath(lostAndFound, cString(place.name));
    try {
      for (const suffix of old.toReversed()) {
        const name = cString(`metadata.db${suffix}`);
        moveFile(held.fd, name, directory, name);
      }
      fsyncSync(directory);
    } finally {
      closeSync(directory);
    }
  }
  fsyncSync(held.fd);
  moveFile(held.fd, cString('metadata.db-restoring'), held.fd, cString('metadata.db'));
  fsyncSync(held.fd);
  return place?.path ?? null;
}

/**
 * Checks that no visible process has the database open: each one that has holds a lock on it.
 *
 * @throws {SnapshotError} FAILED_PRECONDITION if one does
 */
function checkUnused(layout: Layout): void {
  const files = [layout.database, `${layout.database}-shm`].flatMap((path) => {
    const found = lstatSync(path, { throwIfNoEntry: false });
    return found === undefined ? [] : [found];
  });
  for (const line of readFileSync('/proc/locks', 'utf8').split('\n')) {
    const [, pid, major = '', minor = '', inode] =
      /(\S+) ([0-9a-f]+):([0-9a-f]+):(\d+) \S+ \S+$/.exec(line) ?? [];
    const device =
      (parseInt(minor, 16) & 0xff) | (parseInt(major, 16) << 8) | ((parseInt(minor, 16) & ~0xff) << 12);
    // Filesystems without a device of their own report another number to statx(2).
    const isIt = files.some(
      ({ ino, dev }) => String(ino) === inode && (dev === device || parseInt(major, 16) === 0),
    );
    if (!isIt) continue;
    throw new SnapshotError(
      'FAILED_PRECONDITION',
      `process ${pid} has the store ${quote(layout.root)} open`,
      {
        hint: 'stop that process first',
      },
    );
  }
}
