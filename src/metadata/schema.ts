import BetterSqlite3, { type Database } from 'better-sqlite3';
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

/** The objects of a schema, without SQLite's own. */
function readSchema(db: Database): SchemaObject[] {
  return db
    .prepare<[], SchemaObject>(`
      select type, name, sql
        from sqlite_schema
       where name not like 'sqlite\\_%' escape '\\'
         and sql is not null
       order by rowid`)
    .all();
}

/** The schema that the migrations up to a version make. */
function schemaOf(version: number): SchemaObject[] {
  const db = new BetterSqlite3(':memory:');
  try {
    applyMigrations(db, Math.min(version, LATEST_VERSION));
    return readSchema(db);
  } finally {
    db.close();
  }
}

/** Compares a database's schema with that of a version. */
export function schemaDifferences(db: Database, version: number): SchemaDifference[] {
  const expected = schemaOf(version);
  const found = new Map(readSchema(db).map((object) => [`${object.type} ${object.name}`, object.sql]));
  const differences: SchemaDifference[] = [];
  for (const { type, name, sql } of expected) {
    const key = `${type} ${name}`;
    const actual = found.get(key);
    found.delete(key);
    if (actual !== sql) {
      differences.push({ type, name, problem: actual === undefined ? 'missing' : 'changed', sql });
    }
  }
  for (const key of found.keys()) {
    const space = key.indexOf(' ');
    differences.push({ type: key.slice(0, space), name: key.slice(space + 1), problem: 'extra' });
  }
  return differences;
}
