import type { Database } from 'better-sqlite3';

/** A prepared statement that gives rows. */
export interface Query<Parameters extends unknown[], Row> {
  get(...parameters: Parameters): Row | undefined;
  all(...parameters: Parameters): Row[];
}

/** A prepared statement that changes rows. */
export interface Command<Parameters extends unknown[]> {
  run(...parameters: Parameters): { readonly changes: number };
}

/** Prepares a query. A row is an object by the names of the columns. */
export function prepareQuery<Parameters extends unknown[], Row>(
  db: Database,
  sql: string,
): Query<Parameters, Row> {
  return db.prepare<unknown[], Row>(sql);
}

/** Prepares a query whose rows are arrays: an object for each row would cost more than reading it. */
export function prepareTuples<Parameters extends unknown[], Row extends unknown[]>(
  db: Database,
  sql: string,
): Query<Parameters, Row> {
  return db.prepare<unknown[], Row>(sql).raw();
}

/** Prepares a query of one column. A row is its value. */
export function prepareValues<Parameters extends unknown[], Value>(
  db: Database,
  sql: string,
): Query<Parameters, Value> {
  return db.prepare<unknown[], Value>(sql).pluck();
}

/** Prepares a statement that changes rows. */
export function prepareCommand<Parameters extends unknown[]>(db: Database, sql: string): Command<Parameters> {
  return db.prepare(sql);
}
