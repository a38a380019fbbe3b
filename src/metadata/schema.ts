import BetterSqlite3, { type Database } from 'better-sqlite3';
import { SnapshotError } from '../errors.ts';
import { quote } from '../quote.ts';
import { LATEST_VERSION, applyMigrations } from './migrate.ts';

/** A table, index, trigger or view, as `sqlite_schema` has it. */
interface SchemaObject {
  readonly type: string;
  readonly name: string;
  readonly sql: string;
}

/** A difference between the schema of a database and the one that the migrations make. */
export interface SchemaDifference {
  readonly type: string;
  readonly name: string;
  readonly problem: 'missing' | 'changed' | 'extra';
  /** How it should be; absent if it should not be there. */
  readonly sql?: string;
}

/**
 * The objects of a schema, without SQLite's own: its tables, and the indexes of constraints, which have no SQL. Others
 * may have names like theirs, if they were not made by a statement.
 */
function readSchema(db: Database): SchemaObject[] {
  return db
    .prepare<[], SchemaObject>(`
      select type, name, coalesce(sql, '') as sql
        from sqlite_schema
       where not (type = 'table' and name in ('sqlite_sequence', 'sqlite_stat1', 'sqlite_stat4'))
         and not (type = 'index' and sql is null)
       order by rowid`)
    .all();
}

const expected = new Map<number, readonly SchemaObject[]>();

/** The schema that the migrations up to a version make. */
function schemaOf(version: number): readonly SchemaObject[] {
  const known = expected.get(version);
  if (known !== undefined) return known;
  const db = new BetterSqlite3(':memory:');
  try {
    applyMigrations(db, Math.min(version, LATEST_VERSION));
    const schema = readSchema(db);
    expected.set(version, schema);
    return schema;
  } finally {
    db.close();
  }
}

/** Compares a database's schema with that of a version. What was added comes first: it may be in the way of the others. */
export function schemaDifferences(db: Database, version: number): SchemaDifference[] {
  const known = new Map(schemaOf(version).map((object) => [`${object.type} ${object.name}`, object]));
  const found = new Map<string, string>();
  const differences: SchemaDifference[] = [];
  for (const { type, name, sql } of readSchema(db)) {
    const key = `${type} ${name}`;
    // A name can be there twice, if not by a statement.
    if (!known.has(key) || found.has(key)) differences.push({ type, name, problem: 'extra' });
    else found.set(key, sql);
  }
  for (const [key, { type, name, sql }] of known) {
    const actual = found.get(key);
    if (actual === sql) continue;
    differences.push({ type, name, problem: actual === undefined ? 'missing' : 'changed', sql });
  }
  return differences;
}

/**
 * Whether something that is not ours would run when rows are read or written: a trigger, the expression of an index, or
 * a view in the place of one of ours. It may never end.
 */
function wouldRun({ type, problem }: SchemaDifference): boolean {
  if (problem === 'missing' || type === 'table') return false;
  return problem === 'changed' || type !== 'view';
}

/**
 * Checks that nothing in a database of that version would run that is not ours.
 *
 * @throws {SnapshotError} FAILED_PRECONDITION if something would
 * @throws {SnapshotError} DATA_LOSS if a table of ours is missing, or something else is in its place
 */
export function checkNothingForeign(db: Database, version: number): void {
  const [missing] = missingTables(db);
  if (missing !== undefined) {
    throw new SnapshotError('DATA_LOSS', `the database has no table ${quote(missing)}`, {
      hint: 'restore it from a backup, or salvage what can be read: overlite restore',
    });
  }
  const foreign = schemaDifferences(db, version).find(wouldRun);
  if (foreign === undefined) return;
  const { type, name, problem } = foreign;
  throw new SnapshotError(
    'FAILED_PRECONDITION',
    problem === 'extra'
      ? `the database has the ${type} ${quote(name)}, which is not overlite's`
      : `the ${type} ${quote(name)} is not as overlite has made it`,
    {
      hint: 'look at it with overlite check; overlite check --repair keeps its text in lost+found, and drops it',
    },
  );
}

/** Our tables. */
const TABLES: readonly string[] = ['snapshot', 'label', 'removal', 'high_water'];

/** Those of our tables that are missing, or are something else under their names: a view may never end. */
export function missingTables(db: Database): string[] {
  const ordinary = new Set(
    db
      .prepare<[], string>(`
        select name
          from sqlite_schema
         where type = 'table'
           and sql like 'create table %'`)
      .pluck()
      .all(),
  );
  const others = new Set(
    db.prepare<[], string>(`select name from sqlite_schema where type <> 'table'`).pluck().all(),
  );
  return TABLES.filter((name) => !ordinary.has(name) || others.has(name));
}
