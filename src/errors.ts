import { escapeHidden } from './quote.ts';

/**
 * What went wrong, as a gRPC code. Codes never change between major versions; messages may.
 *
 * - `NOT_FOUND`: no snapshot of that key or name
 * - `ALREADY_EXISTS`: the key, name or file is taken
 * - `INVALID_ARGUMENT`: the value can never be right
 * - `FAILED_PRECONDITION`: the value is right, but the state is not
 * - `UNAVAILABLE`: the database stayed locked, or the disk fails, and then the outcome of a write may not be known; try
 *   again
 * - `RESOURCE_EXHAUSTED`: the disk, its inodes or a quota is full, or another limit of the system is reached
 * - `DATA_LOSS`: the database or a layer is damaged
 * - `PERMISSION_DENIED`: the operating system refuses, or others may write to the root
 * - `UNIMPLEMENTED`: this kernel or platform cannot do it
 * - `INTERNAL`: anything else; please report it
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

/**
 * The error class of this package. `hint`, if there is one, says what to do about the error. Both can be shown on a
 * terminal: characters of others' names that would control it are escaped.
 */
export class SnapshotError extends Error {
  override readonly name = 'SnapshotError';
  readonly code: ErrorCode;
  readonly hint: string | undefined;

  constructor(code: ErrorCode, message: string, options: { hint?: string; cause?: unknown } = {}) {
    super(escapeHidden(message), 'cause' in options ? { cause: options.cause } : undefined);
    this.code = code;
    this.hint = options.hint && escapeHidden(options.hint);
  }
}

/** The error for a value of a wrong type: a `TypeError` whose `code` is `INVALID_ARGUMENT`. */
export function wrongType(message: string): TypeError & { readonly code: ErrorCode } {
  return Object.assign(new TypeError(message), { code: 'INVALID_ARGUMENT' as const });
}

/** Whether an error is SQLite's, as better-sqlite3 throws it. */
function isSqliteError(error: unknown): error is Error & { code: string } {
  return (
    error instanceof Error && error.name === 'SqliteError' && typeof Reflect.get(error, 'code') === 'string'
  );
}

/** The SQLite code of an error, or of its cause; empty if neither is SQLite's. */
function sqliteCode(error: unknown): string {
  if (isSqliteError(error)) return error.code;
  return error instanceof SnapshotError && isSqliteError(error.cause) ? error.cause.code : '';
}

/** Whether another connection held a lock that this one needed, so that a retry can succeed. */
export function isBusy(error: unknown): boolean {
  return /^SQLITE_(BUSY|LOCKED)/.test(sqliteCode(error));
}

/** Whether SQLite ran out of disk space. */
export function isFull(error: unknown): boolean {
  return sqliteCode(error) === 'SQLITE_FULL';
}

/** Whether an error of SQLite may come from a disk that fails: what cannot be read is damaged to SQLite. */
export function mayBeDisk(error: unknown): boolean {
  return /^SQLITE_(CORRUPT|IOERR|CANTOPEN|NOTADB)/.test(sqliteCode(error));
}

/** Whether SQLite reports that a file is not a database. */
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
    hint: 'see what overlite check says; bring back a backup with overlite restore, or what can be read with --salvage',
  },
  {
    pattern: /^SQLITE_NOTADB/,
    code: 'DATA_LOSS',
    words: 'the file is not a database',
    hint: 'bring back a backup with overlite restore, or what can be read with --salvage; or choose another root',
  },
  { pattern: /^SQLITE_READONLY/, code: 'FAILED_PRECONDITION', words: 'the database is read-only' },
  { pattern: /^SQLITE_(PERM|AUTH)/, code: 'PERMISSION_DENIED', words: 'permission denied on the database' },
  { pattern: /^SQLITE_CANTOPEN/, code: 'FAILED_PRECONDITION', words: 'the database cannot be opened' },
  {
    pattern: /^SQLITE_CONSTRAINT/,
    code: 'FAILED_PRECONDITION',
    words: 'a constraint was violated',
    hint: 'overlite check says what is wrong with the store',
  },
  { pattern: /^SQLITE_IOERR/, code: 'UNAVAILABLE', words: 'I/O error on the database' },
];

const fromErrno: Readonly<Record<string, ErrorCode>> = {
  EACCES: 'PERMISSION_DENIED',
  EPERM: 'PERMISSION_DENIED',
  ENOSPC: 'RESOURCE_EXHAUSTED',
  EDQUOT: 'RESOURCE_EXHAUSTED',
  EMLINK: 'RESOURCE_EXHAUSTED',
  EFBIG: 'RESOURCE_EXHAUSTED',
  EAGAIN: 'RESOURCE_EXHAUSTED',
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
  EIO: 'UNAVAILABLE',
  EUCLEAN: 'DATA_LOSS',
  ENOSYS: 'UNIMPLEMENTED',
  ENOTSUP: 'UNIMPLEMENTED',
};

/**
 * The error that callers get. A `SnapshotError` or a `TypeError` stays what it is; an error of SQLite or of the operating
 * system becomes a `SnapshotError` with the original as its `cause`. `doing` is the operation, for the message.
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
    return new SnapshotError(code, `${doing}: ${error.message}`, {
      cause: error,
      ...(errno === 'EIO' && { hint: 'what the kernel says of the disk is in its log: dmesg' }),
    });
  }
  return new SnapshotError('INTERNAL', `${doing}: ${String(error)}`, { cause: error });
}
