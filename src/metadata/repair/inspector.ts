import { copyFileSync, existsSync, lstatSync, statSync } from 'node:fs';
import { join } from 'node:path';
import BetterSqlite3, { type Database } from 'better-sqlite3';
import { SnapshotError, isBusy, isNotADatabase, toSnapshotError } from '../../errors.ts';
import { errnoOf, isSystemError } from '../../linux/errno.ts';
import { quote } from '../../quote.ts';
import { APPLICATION_ID, LATEST_VERSION, readVersion } from '../migrate.ts';
import { type SchemaDifference, schemaDifferences } from '../schema.ts';
import { findWalDamage } from './wal.ts';

/** How long a look at the database waits for whoever recovers or locks it, in milliseconds. */
const BUSY_TIMEOUT_MS = 10_000;

/** How often it is tried anew what others may have got in the way of. */
const ATTEMPTS = 5;

/** A row of `snapshot` as it is, which in a damaged database need not be as it should be. */
export interface SeenSnapshot {
  readonly id: number;
  readonly name: string;
  readonly kind: string;
  readonly parentId: number | null;
  readonly createdUs: number;
  readonly inodes: number | null;
  readonly size: number | null;
  readonly seal: string | null;
  readonly inUse: number | null;
  readonly volatileBoot: string | null;
}

/** A row of `removal` as it is. */
export interface SeenRemoval {
  readonly id: number;
  readonly part: string;
  readonly state: string;
}

/** Why a database cannot be looked into at all. */
export type Unopenable = 'missing' | 'not-a-database' | 'foreign' | 'newer' | 'unreadable';

/** Which files are beside a database. Whoever has it open has both, and whoever closes it in order leaves neither. */
interface Files {
  /** The write-ahead log. */
  readonly wal: boolean;
  /** The index of that. */
  readonly shm: boolean;
}

/** Thrown where a database cannot be looked into. */
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
 * Looks into a database that may be damaged, without changing it. While others have it open, it is read in place; what
 * nobody has open, or is on a read-only filesystem, is read from a copy, since SQLite cannot read a database with a WAL
 * without making files beside it.
 *
 * It reads the files by other means than SQLite too, which drops the locks that a process holds on them: it is for
 * processes that have the store open in no other way.
 */
export class Inspector {
  readonly #db: Database;
  /** The version of the database. */
  readonly version: number;
  /** Whether others seem to have it open: what is found may be what they are in the middle of. */
  readonly shared: boolean;
  readonly files: Files;
  /** What is wrong with the write-ahead log. */
  readonly walDamage: string | undefined;
  readonly #row;
  readonly #removals;
  readonly #highWater;

  private constructor(db: Database, facts: Pick<Inspector, 'version' | 'shared' | 'files' | 'walDamage'>) {
    this.#db = db;
    this.version = facts.version;
    this.shared = facts.shared;
    this.files = facts.files;
    this.walDamage = facts.walDamage;
    this.#row = lazily(() =>
      db.prepare<[number], SeenSnapshot>(`select ${this.#columns()} from snapshot where id = ?`),
    );
    this.#removals = lazily(() =>
      db.prepare<[number], SeenRemoval>('select id, part, state from removal where id = ? order by part'),
    );
    this.#highWater = lazily(() => db.prepare<[], number>('select max(id) from high_water').pluck());
  }

  /**
   * Opens a database for inspection. `scratch` gives a directory for a copy of it, if one is needed.
   *
   * @throws {UnopenableError} if it is missing, not a database, another application's, of a newer version, or unreadable
   */
  static open(file: string, scratch: () => string): Inspector {
    const found = lstatSync(file, { throwIfNoEntry: false });
    if (found === undefined) throw new UnopenableError('missing', `there is no database ${quote(file)}`);
    if (!found.isFile()) throw new UnopenableError('not-a-database', `${quote(file)} is not a regular file`);
    if (found.size === 0) throw new UnopenableError('not-a-database', `${quote(file)} is empty`);
    for (let attempt = 0; ; attempt += 1) {
      const files = { wal: existsSync(`${file}-wal`), shm: existsSync(`${file}-shm`) };
      if (files.shm && !files.wal && attempt < ATTEMPTS) {
        // Someone may be about to close it. SQLite would make a new log to read without.
        Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 20);
        continue;
      }
      const shared = files.shm && files.wal;
      try {
        const walDamage = files.wal ? findWalDamage(`${file}-wal`) : undefined;
        const opened = shared ? openInPlace(file) : undefined;
        const db = opened ?? openCopy(file, scratch());
        // Whoever began to use it meanwhile may have changed it halfway through the copy.
        if (db === undefined) {
          if (attempt < ATTEMPTS) continue;
          throw new UnopenableError('unreadable', `${quote(file)} keeps changing while it is copied`);
        }
        return Inspector.#inspect(db, { files, shared: opened !== undefined, walDamage });
      } catch (error) {
        if (error instanceof UnopenableError) throw error;
        const failure = toSnapshotError(error, `reading ${quote(file)}`);
        // That the copy finds no room, or someone holds a lock, says nothing of the database.
        const codes = ['RESOURCE_EXHAUSTED', 'PERMISSION_DENIED'];
        const elsewhere = isSystemError(error) && errnoOf(error) !== 'EIO';
        if (
          elsewhere ||
          isBusy(error) ||
          !(failure instanceof SnapshotError) ||
          codes.includes(failure.code)
        ) {
          throw failure;
        }
        const reason = isNotADatabase(error) ? 'not-a-database' : 'unreadable';
        throw new UnopenableError(reason, failure.message, error);
      }
    }
  }

  static #inspect(db: Database, facts: Pick<Inspector, 'shared' | 'files' | 'walDamage'>): Inspector {
    let ours = false;
    try {
      db.pragma('query_only = on');
      db.pragma('trusted_schema = off');
      db.pragma('cell_size_check = on');
      ours = db.pragma('application_id', { simple: true }) === APPLICATION_ID;
      const version = readVersion(db);
      if (version === 0) throw new UnopenableError('not-a-database', 'the database is empty');
      return new Inspector(db, { ...facts, version });
    } catch (error) {
      db.close();
      if (!(error instanceof SnapshotError) || error.code !== 'FAILED_PRECONDITION') throw error;
      throw new UnopenableError(ours ? 'newer' : 'foreign', error.message);
    }
  }

  /** Whether the version is an older one than is known here. */
  get outdated(): boolean {
    return this.version < LATEST_VERSION;
  }

  /** What SQLite finds wrong with the file itself; nothing if it is whole. */
  integrity({ quick }: { quick: boolean }): string[] {
    const pragma = quick ? 'quick_check(100)' : 'integrity_check(100)';
    return this.#read(() =>
      (this.#db.pragma(pragma) as Record<string, string>[])
        .flatMap((row) => String(Object.values(row)[0]).split('\n'))
        .filter((line) => line !== 'ok' && !line.startsWith('*** in database')),
    );
  }

  /** The tables that refer to rows that are not there, with how many of their rows do. */
  foreignKeys(): { table: string; rows: number }[] {
    return this.#read(() => {
      const counts = new Map<string, number>();
      for (const { table } of this.#db.pragma('foreign_key_check') as { table: string }[]) {
        counts.set(table, (counts.get(table) ?? 0) + 1);
      }
      return [...counts].map(([table, rows]) => ({ table, rows }));
    });
  }

  /** In what the schema is not what the migrations make. */
  schema(): SchemaDifference[] {
    return this.#read(() => schemaDifferences(this.#db, this.version));
  }

  /** Every snapshot, in the order of ids. */
  *snapshots(): Generator<SeenSnapshot, void, undefined> {
    const page = this.#read(() =>
      this.#db.prepare<[number], SeenSnapshot>(
        `select ${this.#columns()} from snapshot where id > ? order by id limit 1000`,
      ),
    );
    for (let after = -1; ;) {
      const rows = this.#read(() => page.all(after));
      yield* rows;
      const last = rows.at(-1);
      if (last === undefined || last.id <= after) return;
      after = last.id;
    }
  }

  /** Every entry of the removal journal. */
  removals(): SeenRemoval[] {
    return this.#read(() =>
      this.#db.prepare<[], SeenRemoval>('select id, part, state from removal order by id, part').all(),
    );
  }

  /** The snapshot of an id as it is now. */
  snapshot(id: number): SeenSnapshot | undefined {
    return this.#read(() => this.#row().get(id));
  }

  /** The journal's entries of an id as they are now. */
  removalsOf(id: number): SeenRemoval[] {
    return this.#read(() => this.#removals().all(id));
  }

  /** The highest id that was ever handed out; `undefined` if the database does not say. */
  highWater(): number | undefined {
    return this.#read(() => this.#highWater().get() ?? undefined);
  }

  /** Runs `body` on the store as it is at one moment. */
  atOnce<T>(body: () => T): T {
    return this.#read(() => {
      this.#db.exec('begin');
      try {
        return body();
      } finally {
        if (this.#db.inTransaction) this.#db.exec('rollback');
      }
    });
  }

  close(): void {
    this.#db.close();
  }

  #columns(): string {
    const volatile = this.version >= 2 ? 'volatile_boot' : 'null';
    return `id, cast(name as text) as name, kind, parent_id as parentId, created_us as createdUs, inodes, size,
            seal, in_use as inUse, ${volatile} as volatileBoot`;
  }

  #read<T>(body: () => T): T {
    try {
      return body();
    } catch (error) {
      const failure = toSnapshotError(error, 'reading the database');
      if (!(failure instanceof SnapshotError) || ['UNAVAILABLE', 'DATA_LOSS'].includes(failure.code))
        throw failure;
      // Whatever else SQLite says here, a whole database would not have made it say.
      throw new SnapshotError('DATA_LOSS', failure.message, { cause: error });
    }
  }
}

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

/** Opens a copy of a database and its log. `undefined` if it changed while it was copied. */
function openCopy(file: string, directory: string): Database | undefined {
  const copy = join(directory, 'metadata.db');
  const state = (): string =>
    [file, `${file}-wal`]
      .map((path) => {
        const found = statSync(path, { throwIfNoEntry: false, bigint: true });
        return found === undefined ? 'none' : `${found.ino} ${found.size} ${found.mtimeNs}`;
      })
      .join(', ');
  const before = state();
  copyFileSync(file, copy);
  if (existsSync(`${file}-wal`)) copyFileSync(`${file}-wal`, `${copy}-wal`);
  if (state() !== before) return undefined;
  return new BetterSqlite3(copy, { timeout: BUSY_TIMEOUT_MS });
}

/** Prepares a statement when it is first needed: a damaged schema may not have what it reads. */
function lazily<T>(make: () => T): () => T {
  let made: { value: T } | undefined;
  return () => (made ??= { value: make() }).value;
}
