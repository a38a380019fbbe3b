import { readFileSync, readdirSync } from 'node:fs';
import type { Database } from 'better-sqlite3';
import { SnapshotError } from '../errors.ts';

/** The bytes `ovlt` in the header of every database of ours; file(1) shows them. */
export const APPLICATION_ID = 0x6f_76_6c_74;

const directory = new URL('../../migrations/', import.meta.url);

/** The migrations in their order; the first makes version 1. Read once, from the package. */
const migrations = readdirSync(directory)
  .filter((name) => /^\d{4}_\w+\.sql$/.test(name))
  .toSorted()
  .map((name) => ({ name, sql: readFileSync(new URL(name, directory), 'utf8') }));

/** The version that the last migration makes. */
export const LATEST_VERSION = migrations.length;

function pragma(db: Database, name: 'application_id' | 'user_version'): number {
  return Number(db.pragma(name, { simple: true }));
}

/**
 * Reads a database's version, without writing to it: 0 is a new, empty one.
 *
 * @throws {SnapshotError} FAILED_PRECONDITION if it belongs to something else, or to a newer version
 */
export function readVersion(db: Database): number {
  const applicationId = pragma(db, 'application_id');
  const version = pragma(db, 'user_version');
  if (applicationId !== APPLICATION_ID) {
    const objects = db.prepare<[], number>('select count(*) from sqlite_schema').pluck().get();
    if (applicationId === 0 && version === 0 && objects === 0) return 0;
    throw new SnapshotError('FAILED_PRECONDITION', 'the database belongs to another application', {
      hint: 'choose another root',
    });
  }
  if (version > migrations.length) {
    throw new SnapshotError(
      'FAILED_PRECONDITION',
      `the database has version ${version}, newer than the ${migrations.length} that is known here`,
      { hint: 'use the version of overlite that wrote it, or a later one' },
    );
  }
  return version;
}

/**
 * Checks that a database is one that `migrate` can bring up to date, or already has, and changes nothing.
 *
 * @returns its version, 0 for a new one
 * @throws {SnapshotError} FAILED_PRECONDITION if it is not, or, where it has to be current, is not that
 */
export function checkVersion(db: Database, { current }: { current: boolean }): number {
  const version = readVersion(db);
  if (current && version < migrations.length) {
    throw new SnapshotError('FAILED_PRECONDITION', `the database has the older version ${version}`, {
      hint: 'open it once for writing, which brings it up to date',
    });
  }
  return version;
}

/** Brings an empty database to a version, for comparison: nothing but the schema is written. */
export function applyMigrations(db: Database, version: number): void {
  for (const { sql } of migrations.slice(0, version)) db.exec(sql);
}

/**
 * Brings a database up to date, each migration in a transaction of its own. Several processes may do so
 * at once: each reads the version again once it holds the write lock.
 *
 * @param backUp keeps a copy of a database that is not new, under the lock of the first migration that it needs
 */
export function migrate(db: Database, backUp?: (version: number) => void): void {
  let backedUp = false;
  const step = db.transaction(() => {
    const version = readVersion(db);
    const next = migrations[version];
    if (next === undefined) return false;
    if (version > 0 && !backedUp) backUp?.(version);
    backedUp = true;
    db.exec(next.sql);
    db.pragma(`application_id = ${APPLICATION_ID}`);
    db.pragma(`user_version = ${version + 1}`);
    return true;
  });
  if (readVersion(db) === migrations.length) return;
  while (step.immediate());
  // So that the database has its space, and the WAL can be used from its beginning again, before a disk fills up.
  db.pragma('wal_checkpoint(restart)');
}
