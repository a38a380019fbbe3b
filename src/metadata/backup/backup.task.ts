import { existsSync, lstatSync, statSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { setImmediate as nextTurn } from 'node:timers/promises';
import type { Database } from 'better-sqlite3';
import type { TaskContext } from '../../linux/child.ts';
import { Descriptors } from '../../linux/descriptors.ts';
import { type Identity, checkIdentity, openSame } from '../../linux/identity.ts';
import { fdPath } from '../../linux/tree-walk.ts';
import { SnapshotError, toSnapshotError } from '../../errors.ts';
import { quote } from '../../quote.ts';
import { copyInto, partialOf, pruneBackups } from './files.ts';
import { DEFAULT_BUSY_TIMEOUT_MS } from '../busy.ts';
import { openDatabase } from '../open.ts';

/** The database to copy, and the new file. */
export interface BackupInput {
  readonly database: string;
  readonly file: string;
  /** What the database was when the backup was asked for, if it was there. */
  readonly identity: Identity | undefined;
  /** If it is a rolling backup: the directory of the backups, and how many to keep afterwards. */
  readonly rolling?: { readonly directory: Identity; readonly keep: number };
}

/** Sent when the copy begins. */
export interface BackupBegun {
  /** The file that grows until it is complete. */
  readonly partial: string;
  /** About how long it is going to be, in bytes. */
  readonly total: number;
}

/**
 * Writes a consistent copy of a database while others may be writing to it. The copy gets its name once it is
 * complete and durable.
 */
export async function writeBackup(
  { database, file: given, identity, rolling }: BackupInput,
  { emit }: TaskContext<BackupBegun>,
): Promise<void> {
  using opened = new Descriptors();
  let db: Database | undefined;
  try {
    // A rolling backup is made in the directory that the driver has open, or not at all.
    const directory = rolling && fdPath(opened.add(openSame(dirname(given), rolling.directory)));
    const file = directory === undefined ? given : join(directory, basename(given));
    checkFree(file);
    db = await openDatabase(database, { readonly: true, busyTimeout: DEFAULT_BUSY_TIMEOUT_MS });
    if (identity !== undefined) checkIdentity(database, identity);
    emit({ partial: partialOf(file), total: statSync(database).size });
    // The event is sent in the next turn; the copy blocks this process.
    await nextTurn();
    copyInto(db, file);
    if (rolling !== undefined) pruneBackups(database, 'rolling', rolling.keep, directory);
  } catch (error) {
    throw toSnapshotError(error, `backing up to ${quote(given)}`);
  } finally {
    db?.close();
  }
}

function checkFree(file: string): void {
  if (lstatSync(file, { throwIfNoEntry: false }) !== undefined) {
    throw new SnapshotError('ALREADY_EXISTS', `${quote(file)} is there already`);
  }
  if (!existsSync(dirname(file))) {
    throw new SnapshotError('FAILED_PRECONDITION', `there is no directory ${quote(dirname(file))}`);
  }
}
