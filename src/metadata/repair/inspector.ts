import type { Database } from 'better-sqlite3';
import { SnapshotError, toSnapshotError } from '../../errors.ts';
import { APPLICATION_ID, LATEST_VERSION, readVersion } from '../migrate.ts';
import { type SchemaDifference, missingTables, schemaDifferences } from '../schema.ts';
import { type Unchanged, UnopenableError, openUnchanged, toUnopenable } from './open-unchanged.ts';

/** A row of `snapshot`, unchecked: in a damaged database it may break every rule. */
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

/** A row of `removal`, unchecked. */
export interface SeenRemoval {
  readonly id: number;
  readonly part: string;
  readonly state: string;
}

/**
 * Reads a database that may be damaged, without changing it.
 *
 * It also reads the files by other means than SQLite, which drops the locks that a process holds on them: only for
 * processes that have the store open in no other way.
 */
export class Inspector {
  readonly #db: Database;
  /** The version of the schema. */
  readonly version: number;
  readonly shared: Unchanged['shared'];
  readonly files: Unchanged['files'];
  readonly walDamage: Unchanged['walDamage'];
  readonly #row;
  readonly #removals;
  readonly #highWater;
  readonly #sequence;

  private constructor({ db, shared, files, walDamage }: Unchanged, version: number) {
    this.#db = db;
    this.version = version;
    this.shared = shared;
    this.files = files;
    this.walDamage = walDamage;
    this.#row = lazily(() =>
      db.prepare<[number], SeenSnapshot>(`select ${this.#columns()} from snapshot where id = ?`),
    );
    this.#removals = lazily(() =>
      db.prepare<[number], SeenRemoval>('select id, part, state from removal where id = ? order by part'),
    );
    this.#highWater = lazily(() => db.prepare<[], number>('select max(id) from high_water').pluck());
    this.#sequence = lazily(() =>
      db
        .prepare<[], number>(`select max(cast(seq as integer)) from sqlite_sequence where name = 'snapshot'`)
        .pluck(),
    );
  }

  /**
   * Opens a database for inspection. `scratch` gives a directory for a copy of it, if one is needed.
   *
   * @throws {UnopenableError} if it is missing, not a database, another application's, of a newer version, or
   *   unreadable
   */
  static open(file: string, scratch: () => string): Inspector {
    const opened = openUnchanged(file, scratch);
    try {
      return new Inspector(opened, prepareForReading(opened.db));
    } catch (error) {
      opened.db.close();
      throw toUnopenable(error, file);
    }
  }

  /** Whether the next open migrates the database to a newer version. */
  get outdated(): boolean {
    return this.version < LATEST_VERSION;
  }

  /** How large the database is by what it says itself, in bytes. */
  size(): number {
    const pragma = (name: string): number => Number(this.#db.pragma(name, { simple: true }));
    return this.#read(() => pragma('page_count') * pragma('page_size'));
  }

  /** What SQLite's integrity check reports; empty if the file is intact. */
  integrity({ quick }: { quick: boolean }): string[] {
    const pragma = quick ? 'quick_check(100)' : 'integrity_check(100)';
    return this.#read(() =>
      (this.#db.pragma(pragma) as Record<string, string>[])
        .flatMap((row) => String(Object.values(row)[0]).split('\n'))
        .filter((line) => line !== 'ok' && !line.startsWith('*** in database')),
    );
  }

  /** The tables with dangling references, and how many rows of each have one. */
  foreignKeys(): { table: string; rows: number }[] {
    return this.#read(() => {
      const counts = new Map<string, number>();
      for (const { table } of this.#db.pragma('foreign_key_check') as { table: string }[]) {
        counts.set(table, (counts.get(table) ?? 0) + 1);
      }
      return [...counts].map(([table, rows]) => ({ table, rows }));
    });
  }

  /** How the schema differs from what the migrations create. */
  schema(): SchemaDifference[] {
    return this.#read(() => schemaDifferences(this.#db, this.version));
  }

  /** @throws {SnapshotError} DATA_LOSS if one of our tables is missing, or is a view, which may never end */
  checkTables(): void {
    const [missing] = this.#read(() => missingTables(this.#db));
    if (missing !== undefined) throw new SnapshotError('DATA_LOSS', `no such table: ${missing}`);
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

  /** The snapshot with an id, as of now. */
  snapshot(id: number): SeenSnapshot | undefined {
    return this.#read(() => this.#row().get(id));
  }

  /** The entries of the removal journal for an id, as of now. */
  removalsOf(id: number): SeenRemoval[] {
    return this.#read(() => this.#removals().all(id));
  }

  /** The values of a label by the ids of the snapshots that have it. */
  labelled(key: string): Map<number, string> {
    const rows = this.#read(() =>
      this.#db
        .prepare<[string], { id: number; value: string }>(
          'select snapshot_id as id, cast(value as text) as value from label where key = ?',
        )
        .all(key),
    );
    return new Map(rows.map(({ id, value }) => [id, value]));
  }

  /** The highest id that was ever assigned; `undefined` if the database does not record it. */
  highWater(): number | undefined {
    return this.#read(() => this.#highWater().get() ?? undefined);
  }

  /** The id after which SQLite goes on by itself; 0 if it is not recorded. */
  sequence(): number {
    return this.#read(() => this.#sequence().get() ?? 0);
  }

  /** Runs `body` in one read transaction, so that all its reads see the same state. */
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
      // Any other error comes from reading a database that is not as it should be.
      throw new SnapshotError('DATA_LOSS', failure.message, { cause: error });
    }
  }
}

/** Prepares a statement when it is first needed: a damaged schema may lack what it reads. */
function lazily<T>(make: () => T): () => T {
  let made: { value: T } | undefined;
  return () => (made ??= { value: make() }).value;
}

/** Sets a connection up to read what may be damaged. @returns the version of the schema */
function prepareForReading(db: Database): number {
  db.pragma('query_only = on');
  db.pragma('trusted_schema = off');
  db.pragma('cell_size_check = on');
  const ours = db.pragma('application_id', { simple: true }) === APPLICATION_ID;
  let version: number;
  try {
    version = readVersion(db);
  } catch (error) {
    if (!(error instanceof SnapshotError) || error.code !== 'FAILED_PRECONDITION') throw error;
    throw new UnopenableError(ours ? 'newer' : 'foreign', error.message);
  }
  if (version === 0) throw new UnopenableError('not-a-database', 'the database is empty');
  return version;
}
