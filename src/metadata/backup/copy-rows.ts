import type { Database } from 'better-sqlite3';
import { SnapshotError } from '../../errors.ts';
import { quote } from '../../quote.ts';
import { APPLICATION_ID, applyMigrations, readVersion } from '../migrate.ts';
import { missingTables } from '../schema.ts';

/** The tables whose rows are copied. Those of `sqlite_sequence` are there in a new database too. */
const TABLES = ['snapshot', 'label', 'removal', 'high_water', 'sqlite_sequence'] as const;

/**
 * Copies the rows of a database to an empty one, which gets the schema that our migrations make. So nothing that is not
 * ours comes along, and nothing of it runs meanwhile.
 *
 * @throws {SnapshotError} FAILED_PRECONDITION if it belongs to something else, or to a newer version
 * @throws {SnapshotError} DATA_LOSS if a table is missing
 */
export function copyRows(from: Database, to: Database): void {
  from.exec('begin');
  try {
    const version = readVersion(from);
    const [missing] = missingTables(from);
    if (missing !== undefined) {
      throw new SnapshotError('DATA_LOSS', `the database has no table ${quote(missing)}`);
    }
    to.pragma('foreign_keys = off');
    // What the rows of a damaged database say is for a check to judge.
    to.pragma('ignore_check_constraints = on');
    const copy = to.transaction(() => {
      applyMigrations(to, version);
      const triggers = to
        .prepare<[], { name: string; sql: string }>(
          `select name, sql from sqlite_schema where type = 'trigger'`,
        )
        .all();
      for (const { name } of triggers) to.exec(`drop trigger "${name}"`);
      for (const table of TABLES) copyTable(from, to, table);
      for (const { sql } of triggers) to.exec(sql);
      to.pragma(`application_id = ${APPLICATION_ID}`);
      to.pragma(`user_version = ${version}`);
    });
    copy();
  } finally {
    // SQLite may have rolled back by itself.
    if (from.inTransaction) from.exec('rollback');
  }
}

function copyTable(from: Database, to: Database, table: (typeof TABLES)[number]): void {
  const columns = to.prepare<[string], string>('select name from pragma_table_info(?)').pluck().all(table);
  const list = columns.join(', ');
  const rows = from.prepare<[], unknown[]>(`select ${list} from ${table}`).raw().safeIntegers();
  to.exec(`delete from ${table}`);
  const insert = to.prepare(`insert into ${table} (${list}) values (${columns.map(() => '?').join(', ')})`);
  for (const row of rows.iterate()) insert.run(row);
}
