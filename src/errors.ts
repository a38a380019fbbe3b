/**
 * What went wrong, in gRPC's words. Codes never change between major versions; messages may.
 *
 * - `NOT_FOUND`: no snapshot of that key or name
 * - `ALREADY_EXISTS`: the key, name or file is taken
 * - `INVALID_ARGUMENT`: the value itself can never be right
 * - `FAILED_PRECONDITION`: right in itself, but not in the present state
 * - `UNAVAILABLE`: locked beyond the timeout, or an earlier write's outcome is not settled; try again
 * - `RESOURCE_EXHAUSTED`: the disk, its inodes or a quota is full
 * - `DATA_LOSS`: the database or a layer is damaged
 * - `PERMISSION_DENIED`: the operating system says no, or the root is open to others
 * - `UNIMPLEMENTED`: this kernel or platform cannot do it
 * - `INTERNAL`: anything else; worth a bug report
 */
export type ErrorCode =
  | 'NOT_FOUND'
  | 'ALREADY_EXISTS'
  | 'INVALID_ARGUMENT'
  | 'FAILED_PRECONDITION'
  | 'UNAVAILABLE'
  | 'RESOURCE_EXHAUSTED'
  | 'DATA_LOSS'
  | 'PERMISSION_DENIED'
  | 'UNIMPLEMENTED'
  | 'INTERNAL';

/** The one error class of this package. `hint`, where there is one, says what to do about it. */
export class SnapshotError extends Error {
  override readonly name = 'SnapshotError';
  readonly code: ErrorCode;
  readonly hint: string | undefined;

  constructor(code: ErrorCode, message: string, options: { hint?: string; cause?: unknown } = {}) {
    super(message, 'cause' in options ? { cause: options.cause } : undefined);
    this.code = code;
    this.hint = options.hint;
  }
}

/** Whether `error` came from SQLite: better-sqlite3 names its codes after SQLite's own. */
function isSqliteError(error: unknown): error is Error & { code: string } {
  return (
    error instanceof Error && error.name === 'SqliteError' && typeof Reflect.get(error, 'code') === 'string'
  );
}

/** SQLite's own code for an error, also where it has become the cause of another; empty if it is none of SQLite's. */
function sqliteCode(error: unknown): string {
  if (isSqliteError(error)) return error.code;
  return error instanceof SnapshotError && isSqliteError(error.cause) ? error.cause.code : '';
}

/** Whether another connection held a lock that this one needed, so that trying again can help. */
export function isBusy(error: unknown): boolean {
  return /^SQLITE_(BUSY|LOCKED)/.test(sqliteCode(error));
}

/** Whether SQLite ran out of disk. */
export function isFull(error: unknown): boolean {
  return sqliteCode(error) === 'SQLITE_FULL';
}

/** Whether SQLite says that a file is no database. */
export function isNotADatabase(error: unknown): boolean {
  return sqliteCode(error) === 'SQLITE_NOTADB';
}

interface Translation {
  readonly pattern: RegExp;
  readonly code: ErrorCode;
  readonly words: string;
  readonly hint?: string;
}

const fromSqlite: readonly Translation[] = [
  { pattern: /^SQLITE_(BUSY|LOCKED)/, code: 'UNAVAILABLE', words: 'the database is locked' },
  {
    pattern: /^SQLITE_(FULL|IOERR_SHMSIZE)/,
    code: 'RESOURCE_EXHAUSTED',
    words: 'no space is left for the database',
    hint: 'free some disk space, or remove snapshots',
  },
  {
    pattern: /^SQLITE_CORRUPT/,
    code: 'DATA_LOSS',
    words: 'the database is damaged',
    hint: 'look at it with: sqlite3 metadata.db "pragma integrity_check"',
  },
  {
    pattern: /^SQLITE_NOTADB/,
    code: 'DATA_LOSS',
    words: 'the file is not a database',
    hint: 'restore it from a backup, or choose another root',
  },
  { pattern: /^SQLITE_READONLY/, code: 'FAILED_PRECONDITION', words: 'the database is read-only' },
  { pattern: /^SQLITE_(PERM|AUTH)/, code: 'PERMISSION_DENIED', words: 'the database is off limits' },
  { pattern: /^SQLITE_CANTOPEN/, code: 'FAILED_PRECONDITION', words: 'the database cannot be opened' },
  { pattern: /^SQLITE_CONSTRAINT/, code: 'FAILED_PRECONDITION', words: 'the database refused it' },
  { pattern: /^SQLITE_IOERR/, code: 'UNAVAILABLE', words: 'the disk failed under the database' },
];

const fromErrno: Readonly<Record<string, ErrorCode>> = {
  EACCES: 'PERMISSION_DENIED',
  EPERM: 'PERMISSION_DENIED',
  ENOSPC: 'RESOURCE_EXHAUSTED',
  EDQUOT: 'RESOURCE_EXHAUSTED',
  EMFILE: 'RESOURCE_EXHAUSTED',
  ENFILE: 'RESOURCE_EXHAUSTED',
  ENOMEM: 'RESOURCE_EXHAUSTED',
  EROFS: 'FAILED_PRECONDITION',
  ENOENT: 'FAILED_PRECONDITION',
  ENOTDIR: 'FAILED_PRECONDITION',
  EBUSY: 'FAILED_PRECONDITION',
  EXDEV: 'FAILED_PRECONDITION',
  ELOOP: 'FAILED_PRECONDITION',
  ENAMETOOLONG: 'INVALID_ARGUMENT',
  EIO: 'DATA_LOSS',
  EUCLEAN: 'DATA_LOSS',
  ENOSYS: 'UNIMPLEMENTED',
  ENOTSUP: 'UNIMPLEMENTED',
};

/**
 * The error as callers get to see it: a `SnapshotError` or a `TypeError` stays what it is,
 * SQLite's and the operating system's become a `SnapshotError` that keeps them as `cause`.
 * `doing` says in a few words what was being done.
 */
export function toSnapshotError(error: unknown, doing: string): SnapshotError | TypeError {
  if (error instanceof SnapshotError || error instanceof TypeError) return error;
  if (isSqliteError(error)) {
    const { code, words, hint } = fromSqlite.find(({ pattern }) => pattern.test(error.code)) ?? {
      code: 'INTERNAL',
      words: error.code,
    };
    const message = `${doing}: ${words} (${error.message})`;
    return new SnapshotError(code, message, { cause: error, ...(hint !== undefined && { hint }) });
  }
  if (error instanceof Error) {
    const errno: unknown = Reflect.get(error, 'code');
    const code = typeof errno === 'string' ? (fromErrno[errno] ?? 'INTERNAL') : 'INTERNAL';
    return new SnapshotError(code, `${doing}: ${error.message}`, { cause: error });
  }
  return new SnapshotError('INTERNAL', `${doing}: ${String(error)}`, { cause: error });
}
