import { chmodSync, existsSync, lstatSync, mkdirSync } from 'node:fs';
import { dirname, join } from 'node:path';
import BetterSqlite3, { type Database } from 'better-sqlite3';
import { SnapshotError, toSnapshotError } from '../errors.ts';
import { hasDirectory } from '../linux/plain-file.ts';
import { quote } from '../quote.ts';
import { backupsOf, copyInto, nameBackup, pruneBackups } from './backup/files.ts';
import { SQLITE_BUSY_TIMEOUT_MS, retryWhileBusy } from './busy.ts';
import { checkFiles } from './database-files.ts';
import { matchesPattern } from './filter-sql.ts';
import { checkVersion, migrate } from './migrate.ts';
import { checkNothingForeign } from './schema.ts';

/** How a database is opened. */
export interface OpenDatabaseOptions {
  /** Refuse every write, and a database that is not there or needs a migration. */
  readonly: boolean;
  /** How long to wait for other processes, in milliseconds. */
  busyTimeout: number;
  /** Whether to keep a copy beside the database before it is migrated (default: true). */
  backup?: boolean;
  /** Gives the path by which the directory of the copies is reached, and makes that (default: `backups/` beside it). */
  backups?: () => string;
  /** Opens it for a repair: it may hold what is not ours, and is not migrated (default: false). */
  repair?: boolean;
}

/**
 * Opens a database and brings it up to date, or opens it for reading as it is. A database that is refused is
 * left untouched.
 *
 * Nothing here or elsewhere opens the file but SQLite: closing any descriptor of it would drop all the locks
 * that this process holds on it.
 *
 * @throws {SnapshotError} FAILED_PRECONDITION if it belongs to another application or a newer version, holds a trigger
 *   or an index that is not ours, or if something else than a regular file is in the place of one of its files
 * @throws {SnapshotError} DATA_LOSS if it is not a database, or a damaged one
 * @throws {SnapshotError} UNAVAILABLE if others keep it locked for longer than `busyTimeout`
 */
export async function openDatabase(file: string, options: OpenDatabaseOptions): Promise<Database> {
  const doing = `opening ${quote(file)}`;
  let db: Database | undefined;
  try {
    if (!existsSync(dirname(file))) {
      throw new SnapshotError('FAILED_PRECONDITION', `there is no directory ${quote(dirname(file))}`);
    }
    checkFiles(file);
    const { readonly, busyTimeout, backup = true, repair = false } = options;
    const { backups = () => makeBackups(file) } = options;
    // The busy timeout comes first of all, as an option: the pragmas below already need locks.
    db = new BetterSqlite3(file, { readonly, fileMustExist: readonly, timeout: SQLITE_BUSY_TIMEOUT_MS });
    const opened = db;
    // A new root is opened by several processes at once, and the switch to WAL does not wait its turn.
    await retryWhileBusy(
      () => configure(opened, file, { readonly, backup, backups, repair }),
      busyTimeout,
      doing,
    );
    checkFiles(file);
    return opened;
  } catch (error) {
    db?.close();
    throw toSnapshotError(error, doing);
  }
}

/** Closes a database that was opened for writing, leaving its statistics up to date. May be called more than once. */
export function closeDatabase(db: Database): void {
  if (!db.open) return;
  try {
    db.pragma('optimize');
  } catch {
    // Statistics help queries and are not data: another writer or a full disk may prevent them.
  }
  db.close();
}

function configure(
  db: Database,
  file: string,
  { readonly, backup, backups, repair }: Required<Omit<OpenDatabaseOptions, 'busyTimeout'>>,
): void {
  db.pragma('trusted_schema = off');
  // Of one moment: another process may be migrating it.
  db.transaction(() => {
    const version = checkVersion(db, { current: readonly });
    if (version > 0 && !repair) checkNothingForeign(db, version);
  })();
  if (readonly) {
    db.pragma('query_only = on');
  } else {
    // Before the WAL is made, which takes its mode from the database.
    if ((lstatSync(file).mode & 0o777) !== 0o600) chmodSync(file, 0o600);
    const mode = db.pragma('journal_mode = wal', { simple: true });
    if (mode !== 'wal') {
      throw new SnapshotError(
        'FAILED_PRECONDITION',
        `the database cannot be switched to WAL but stays in ${String(mode)}`,
      );
    }
    // Without this, better-sqlite3 lowers it to NORMAL after the first write in WAL mode, and a power cut
    // takes back what was acknowledged.
    db.pragma('synchronous = full');
    db.pragma('foreign_keys = on');
    db.pragma('journal_size_limit = 8388608');
  }
  db.pragma('cell_size_check = on');
  db.function('overlite_matches', { deterministic: true }, matchesPattern);
  if (readonly || repair) return;
  migrate(db, backup ? (version) => backUpBeforeMigration(file, version, backups()) : undefined);
}

/** How many copies from before migrations are kept. */
const KEPT_BEFORE_MIGRATIONS = 3;

/** Makes `backups/` beside a database, unless it is there. @returns its path */
function makeBackups(file: string): string {
  const directory = backupsOf(file);
  if (!hasDirectory(directory)) mkdirSync(directory, { mode: 0o700 });
  return directory;
}

/** Keeps a copy of a database that is about to be migrated. Called while the write lock is held. */
function backUpBeforeMigration(file: string, version: number, directory: string): void {
  // VACUUM cannot run within a transaction. Another connection reads the database as it is before this one.
  const db = new BetterSqlite3(file, { readonly: true, timeout: SQLITE_BUSY_TIMEOUT_MS });
  try {
    copyInto(db, join(directory, nameBackup(file, version)));
  } finally {
    db.close();
  }
  pruneBackups(file, 'migration', KEPT_BEFORE_MIGRATIONS, directory);
}
