import { existsSync, realpathSync } from 'node:fs';
import BetterSqlite3 from 'better-sqlite3';
import { SnapshotError, toSnapshotError } from '../../errors.ts';
import { quote } from '../../quote.ts';
import { copyInto } from '../backup/files.ts';
import { DEFAULT_BUSY_TIMEOUT_MS } from '../busy.ts';
import { checkFiles } from '../database-files.ts';
import { openDatabase } from '../open.ts';
import type { LeftRemoval, Rebuilt } from './rebuilt.ts';

/**
 * Creates a new database from a backup. Its removal journal is emptied: the ids in it may have been assigned to other
 * snapshots since the backup.
 *
 * @throws {SnapshotError} DATA_LOSS if the backup is damaged or not a database
 * @throws {SnapshotError} FAILED_PRECONDITION if it is missing, another application's, or of a newer version
 */
export async function copyBackup(backup: string, file: string): Promise<Rebuilt> {
  try {
    if (!existsSync(backup)) {
      throw new SnapshotError('FAILED_PRECONDITION', `there is no backup ${quote(backup)}`);
    }
    // A link that somebody names is followed; what SQLite opens beside the backup has to be regular all the same.
    const real = realpathSync(backup);
    checkFiles(real);
    const from = new BetterSqlite3(real, { readonly: true, fileMustExist: true });
    try {
      from.pragma('trusted_schema = off');
      from.pragma('cell_size_check = on');
      copyInto(from, file);
    } finally {
      from.close();
    }
    const db = await openDatabase(file, {
      readonly: false,
      busyTimeout: DEFAULT_BUSY_TIMEOUT_MS,
      backup: false,
    });
    try {
      const journal = db
        .prepare<[], LeftRemoval>('select id, part, state from removal order by id, part')
        .all();
      db.prepare('delete from removal').run();
      const snapshots = db.prepare<[], number>('select count(*) from snapshot').pluck().get() ?? 0;
      return { snapshots, lost: [], journal };
    } finally {
      db.close();
    }
  } catch (error) {
    throw toSnapshotError(error, `reading the backup ${quote(backup)}`);
  }
}
