import { lstatSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import BetterSqlite3, { type Database } from 'better-sqlite3';
import { SnapshotError, isBusy, isNotADatabase, toSnapshotError } from '../../errors.ts';
import { copyFile } from '../../linux/copy-file.ts';
import { errnoOf, isSystemError } from '../../linux/errno.ts';
import { statPlain } from '../../linux/plain-file.ts';
import { quote } from '../../quote.ts';
import { FILE_SUFFIXES } from '../database-files.ts';
import { findWalDamage } from './wal.ts';

/** How long reading the database waits for a lock, in milliseconds. */
const BUSY_TIMEOUT_MS = 10_000;

/** How often opening is retried when other processes get in the way. */
const ATTEMPTS = 5;

/** Why a database cannot be inspected at all. */
export type Unopenable = 'missing' | 'not-a-database' | 'foreign' | 'newer' | 'unreadable';

/** Thrown if a database cannot be inspected. */
export class UnopenableError extends SnapshotError {
  readonly reason: Unopenable;

  constructor(reason: Unopenable, message: string, cause?: unknown) {
    super(reason === 'newer' || reason === 'foreign' ? 'FAILED_PRECONDITION' : 'DATA_LOSS', message, {
      cause,
    });
    this.reason = reason;
  }
}

/**
 * Which files are beside a database. While a process has it open there are both; closing it in order removes both.
 */
interface Files {
  /** The write-ahead log. */
  readonly wal: boolean;
  /** The index of the log. */
  readonly shm: boolean;
}

/** A database that was opened without changing it. */
export interface Unchanged {
  readonly db: Database;
  readonly files: Files;
  /** Whether other processes seem to have it open: what is found may be an operation in progress. */
  readonly shared: boolean;
  /** What is wrong with the write-ahead log; `undefined` if nothing is. */
  readonly walDamage: string | undefined;
}

/**
 * Opens a database that may be damaged, without changing it. While other processes have it open, it is read in place.
 * Otherwise, and on a read-only filesystem, it is read from a copy in the directory that `scratch` gives: SQLite
 * cannot read a database with a WAL without creating files beside it. What is in the place of the log or its index and
 * is not a regular file is left alone, as if it were not there.
 *
 * @throws {UnopenableError} if it is missing, not a database, or unreadable
 * @throws {SnapshotError} if the copy fails or the database stays locked, which says nothing about the database
 */
export function openUnchanged(file: string, scratch: () => string): Unchanged {
  const found = lstatSync(file, { throwIfNoEntry: false });
  if (found === undefined) throw new UnopenableError('missing', `there is no database ${quote(file)}`);
  if (!found.isFile()) throw new UnopenableError('not-a-database', `${quote(file)} is not a regular file`);
  if (found.size === 0) throw new UnopenableError('not-a-database', `${quote(file)} is empty`);
  for (let attempt = 0; attempt <= ATTEMPTS; attempt += 1) {
    const files = { wal: isThere(`${file}-wal`), shm: isThere(`${file}-shm`) };
    if (files.shm && !files.wal && attempt < ATTEMPTS) {
      // Another process may be about to close it. SQLite would create a new log in order to read.
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 20);
      continue;
    }
    try {
      const walDamage = statPlain(`${file}-wal`) !== undefined ? findWalDamage(`${file}-wal`) : undefined;
      const inPlace = files.shm && files.wal && arePlain(file) ? openInPlace(file) : undefined;
      const db = inPlace ?? openCopy(file, scratch());
      if (db !== undefined) return { db, files, shared: inPlace !== undefined, walDamage };
    } catch (error) {
      throw toUnopenable(error, file);
    }
  }
  throw new UnopenableError('unreadable', `${quote(file)} keeps changing while it is copied`);
}

/**
 * Translates an error of opening a database. It is an `UnopenableError` unless the cause is elsewhere: a full disk
 * under the copy, a lock, or missing permissions.
 */
export function toUnopenable(error: unknown, file: string): SnapshotError | TypeError {
  if (error instanceof UnopenableError) return error;
  const failure = toSnapshotError(error, `reading ${quote(file)}`);
  const elsewhere =
    (isSystemError(error) && errnoOf(error) !== 'EIO') ||
    isBusy(error) ||
    !(failure instanceof SnapshotError) ||
    failure.code === 'RESOURCE_EXHAUSTED' ||
    failure.code === 'PERMISSION_DENIED';
  if (elsewhere) return failure;
  return new UnopenableError(isNotADatabase(error) ? 'not-a-database' : 'unreadable', failure.message, error);
}

function isThere(path: string): boolean {
  return lstatSync(path, { throwIfNoEntry: false }) !== undefined;
}

/** Whether SQLite finds regular files, or none, where it opens the files of a database. */
function arePlain(file: string): boolean {
  return FILE_SUFFIXES.every((suffix) => {
    const path = `${file}${suffix}`;
    return !isThere(path) || statPlain(path) !== undefined;
  });
}

/** Opens a database where it is. `undefined` if SQLite may not create or write what it needs there. */
function openInPlace(file: string): Database | undefined {
  let db: Database | undefined;
  try {
    db = new BetterSqlite3(file, { readonly: true, fileMustExist: true, timeout: BUSY_TIMEOUT_MS });
    db.pragma('schema_version');
    return db;
  } catch (error) {
    db?.close();
    const code: unknown = Reflect.get(Object(error), 'code');
    if (typeof code === 'string' && /^SQLITE_(CANTOPEN|READONLY|PERM|IOERR)/.test(code)) return undefined;
    throw error;
  }
}

/** Opens a copy of a database and its log. `undefined` if another process changed it during the copy. */
function openCopy(file: string, directory: string): Database | undefined {
  const copy = join(directory, 'metadata.db');
  const state = (): string =>
    [file, `${file}-wal`]
      .map((path) => {
        const found = lstatSync(path, { throwIfNoEntry: false, bigint: true });
        return found === undefined ? 'none' : `${found.ino} ${found.size} ${found.mtimeNs}`;
      })
      .join(', ');
  const before = state();
  for (const suffix of ['', '-wal']) {
    rmSync(`${copy}${suffix}`, { force: true });
    if (statPlain(`${file}${suffix}`) !== undefined) copyFile(`${file}${suffix}`, `${copy}${suffix}`);
  }
  if (state() !== before) return undefined;
  return new BetterSqlite3(copy, { timeout: BUSY_TIMEOUT_MS });
}
