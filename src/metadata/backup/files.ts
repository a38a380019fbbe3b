import { linkSync, readdirSync, rmSync, statSync, unlinkSync, writeFileSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import BetterSqlite3, { type Database } from 'better-sqlite3';
import { SnapshotError } from '../../errors.ts';
import { errnoOf } from '../../linux/errno.ts';
import { hasDirectory } from '../../linux/plain-file.ts';
import { syncPath } from '../../linux/sync-path.ts';
import { quote } from '../../quote.ts';
import { newestFirst } from './newest.ts';
import { copyRows } from './copy-rows.ts';

/** The path that a file has until it is complete. */
export function partialOf(file: string): string {
  return `${file}.partial-${process.pid}`;
}

/** Removes a file that was not completed, with the journal that SQLite keeps beside it while it writes. */
export function removePartial(partial: string): void {
  rmSync(partial, { force: true });
  rmSync(`${partial}-journal`, { force: true });
}

/**
 * Copies a database to a new file, without a write-ahead log beside it and without anything in it that is not ours. It
 * gets its name once it is complete and durable.
 *
 * @throws {SnapshotError} ALREADY_EXISTS if the file exists
 * @throws {SnapshotError} DATA_LOSS if the copy is damaged
 */
export function copyInto(db: Database, file: string): void {
  const partial = partialOf(file);
  removePartial(partial);
  try {
    writeFileSync(partial, '', { mode: 0o600, flag: 'wx' });
    fill(partial, db);
    // SQLite resolves the path by itself, and what it came to can be another file by then.
    if (statSync(partial).size === 0) {
      throw new SnapshotError('FAILED_PRECONDITION', `the path of ${quote(partial)} leads elsewhere`);
    }
    verify(partial);
    syncPath(partial);
    // Unlike a rename, a link never replaces an existing file.
    linkSync(partial, file);
  } catch (error) {
    if (errnoOf(error) === 'EEXIST')
      throw new SnapshotError('ALREADY_EXISTS', `${quote(file)} is there already`);
    throw error;
  } finally {
    removePartial(partial);
  }
  syncPath(dirname(file));
}

/** Writes a copy, which is made durable later. */
function fill(partial: string, db: Database): void {
  const copy = new BetterSqlite3(partial, { fileMustExist: true });
  try {
    copy.pragma('journal_mode = off');
    copy.pragma('synchronous = off');
    // Little is kept in memory, so that the file grows while the rows are copied.
    copy.pragma('cache_size = -1024');
    copyRows(db, copy);
  } finally {
    copy.close();
  }
}

/** A backup that cannot be restored is worse than none. */
function verify(file: string): void {
  const copy = new BetterSqlite3(file, { readonly: true });
  try {
    const result = copy.pragma('quick_check(1)', { simple: true });
    if (result !== 'ok') throw new SnapshotError('DATA_LOSS', `the database is damaged: ${String(result)}`);
  } finally {
    copy.close();
  }
}

/** The directory of the automatic backups. */
export function backupsOf(database: string): string {
  return join(dirname(database), 'backups');
}

/** The same, if it is there. */
function findBackups(database: string): string | undefined {
  const directory = backupsOf(database);
  return hasDirectory(directory) ? directory : undefined;
}

/** The names of automatic backups of a store. */
export const BACKUP_NAME = /^metadata(?:-v\d+)?-\d{8}T\d{9}Z\.db$/;

/**
 * The automatic backups of one kind, in no order.
 *
 * @param directory the path by which their directory is reached (default: where it should be)
 * @throws {SnapshotError} FAILED_PRECONDITION if something else is in the place of their directory
 */
export function listBackups(
  database: string,
  kind: 'rolling' | 'migration' | 'any',
  directory: string | undefined = findBackups(database),
): string[] {
  if (directory === undefined) return [];
  const stem = basename(database, '.db').replace(/\W/g, '\\$&');
  const version = { rolling: '', migration: '-v\\d+', any: '(?:-v\\d+)?' }[kind];
  const pattern = new RegExp(`^${stem}${version}-\\d{8}T\\d{9}Z\\.db$`);
  return readdirSync(directory, { withFileTypes: true })
    .filter((entry) => entry.isFile() && pattern.test(entry.name))
    .map(({ name }) => join(directory, name));
}

/** The name of a new automatic backup. The time in it is for people. */
export function nameBackup(database: string, version?: number): string {
  const time = new Date().toISOString().replace(/[-:.]/g, '');
  const kind = version === undefined ? '' : `-v${version}`;
  return `${basename(database, '.db')}${kind}-${time}.db`;
}

/** After how long a partial file is removed, in milliseconds: until then its process may still be writing. */
const ABANDONED_MS = 24 * 60 * 60 * 1000;

/** Deletes all but the newest `keep` backups of a kind, and the partial files that crashes left. */
export function pruneBackups(
  database: string,
  kind: 'rolling' | 'migration',
  keep: number,
  directory: string | undefined = findBackups(database),
): void {
  if (directory === undefined) return;
  const partial = readdirSync(directory)
    .filter((name) => name.includes('.db.partial-'))
    .map((name) => join(directory, name))
    .filter((path) => {
      const { mtimeMs } = statSync(path, { throwIfNoEntry: false }) ?? { mtimeMs: 0 };
      // Also one from the future.
      return Math.abs(Date.now() - mtimeMs) > ABANDONED_MS;
    });
  for (const old of [...newestFirst(listBackups(database, kind, directory)).slice(keep), ...partial]) {
    try {
      unlinkSync(old);
    } catch (error) {
      // Other processes that have the store open prune too.
      if (errnoOf(error) !== 'ENOENT') throw error;
    }
  }
}
