import { type Stats, lstatSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { SnapshotError } from '../../errors.ts';
import type { Layout } from '../../layers/layout.ts';
import { describeType, statPlain } from '../../linux/plain-file.ts';
import { BACKUP_NAME, backupsOf } from '../../metadata/backup/files.ts';
import { FILE_SUFFIXES } from '../../metadata/database-files.ts';
import { Inspector } from '../../metadata/repair/inspector.ts';
import { UnopenableError, type Unopenable } from '../../metadata/repair/open-unchanged.ts';
import type { DatabaseContext } from '../context.ts';
import type { Problems } from '../problems.ts';
import { Rows } from '../rows.ts';

const UNOPENABLE = {
  missing: 'database-missing',
  'not-a-database': 'not-a-database',
  foreign: 'database-foreign',
  newer: 'database-newer',
  unreadable: 'database-unreadable',
} as const satisfies Record<Unopenable, string>;

/** Opens the database for all steps. If it cannot be opened, adds why, and returns `undefined`. */
export function openDatabase(
  layout: Layout,
  scratch: () => string,
  problems: Problems,
): Inspector | undefined {
  const { restoring, database } = layout;
  checkTypes(layout, problems);
  if (statusOf(restoring)?.isFile() === true) {
    problems.add('restore-interrupted', { path: restoring });
    return undefined;
  }
  try {
    return Inspector.open(database, scratch);
  } catch (error) {
    if (!(error instanceof UnopenableError)) throw error;
    const next = nextStep(error.reason, database);
    problems.add(UNOPENABLE[error.reason], { error, next, path: database });
    return undefined;
  }
}

/** What to do about a database that cannot be opened. */
function nextStep(reason: Unopenable, database: string): string {
  const backups = backupsOf(database);
  const hasBackup =
    statusOf(backups)?.isDirectory() === true && readdirSync(backups).some((name) => BACKUP_NAME.test(name));
  const restore = hasBackup
    ? 'overlite restore brings back the newest backup'
    : 'there is no backup beside it, overlite restore takes one from elsewhere';
  return reason === 'missing' ? restore : `${restore}, and with --salvage what can be read`;
}

/**
 * Checks that nothing else is in the place of a file or directory of the store: neither a link, which would lead out of
 * it, nor a fifo, at which whoever opens it may wait for ever. What is in the place of the database itself or of
 * `snapshots/` is found elsewhere.
 */
function checkTypes({ database, spareSpace, restoring, lostAndFound }: Layout, problems: Problems): void {
  const backups = backupsOf(database);
  const check = (path: string, wanted: 'file' | 'directory'): void => {
    const found = statusOf(path);
    if (found === undefined || (wanted === 'file' ? found.isFile() : found.isDirectory())) return;
    problems.add('wrong-type', { what: path, type: describeType(found), wanted, path });
  };
  // The first to be repaired, since the others are moved there.
  check(lostAndFound, 'directory');
  check(backups, 'directory');
  const copies =
    statusOf(backups)?.isDirectory() === true
      ? readdirSync(backups).filter((name) => BACKUP_NAME.test(name))
      : [];
  const files = [
    ...FILE_SUFFIXES.filter((suffix) => suffix !== '').map((suffix) => `${database}${suffix}`),
    spareSpace,
    restoring,
    ...copies.map((name) => join(backups, name)),
  ];
  for (const file of files) check(file, 'file');
}

function statusOf(path: string): Stats | undefined {
  return lstatSync(path, { throwIfNoEntry: false });
}

/** Reads the rows for the other steps. If they cannot all be read, adds why, and returns `undefined`. */
export function readRows(context: DatabaseContext): Rows | undefined {
  try {
    context.inspector.checkTables();
    return Rows.read(context.inspector);
  } catch (error) {
    if (!(error instanceof SnapshotError) || error.code === 'UNAVAILABLE') throw error;
    addCorruption(context, error);
    return undefined;
  }
}

/** Adds damage that showed while the database was read, unless the integrity check has found it already. */
export function addCorruption({ problems, layout }: DatabaseContext, error: SnapshotError): void {
  if (problems.has('database-corrupt')) return;
  problems.add('database-corrupt', { lines: [reasonOf(error)], path: layout.database });
}

/** What SQLite itself said. */
function reasonOf({ cause, message }: SnapshotError): string {
  return cause instanceof Error ? cause.message : message;
}

/** What SQLite reports if only an index is damaged. */
const OF_INDEXES =
  /missing from index|wrong # of entries in index|non-unique entry in index|differ from index/i;

/** What SQLite reports if a row violates the declaration of its table. */
const OF_CONSTRAINTS =
  /^(CHECK constraint failed|NULL value in|NUMERIC value in|TEXT value in|non-\w+ value in)/;

/** Checks the database itself: its file, its log, its schema and its references. */
export function checkDatabase(context: DatabaseContext): void {
  const { inspector, progress, problems } = context;
  const path = context.layout.database;
  if (inspector.outdated) problems.add('database-older', { version: inspector.version, path });
  checkSize(context);
  checkLog(context);
  checkIntegrity(context);
  for (const difference of inspector.schema()) {
    progress.advance();
    problems.add('schema-differs', { difference, path });
  }
  if (problems.has('database-corrupt')) return;
  for (const { table, rows } of inspector.foreignKeys()) {
    progress.advance(rows);
    problems.add('foreign-key', { table, rows, path });
  }
}

function checkSize({ inspector, layout, problems }: DatabaseContext): void {
  const path = layout.database;
  // First, since the database may be growing.
  const size = statPlain(path)?.size ?? 0;
  const excess = size - inspector.size();
  if (excess > 0) problems.add('database-oversized', { excess, path });
}

function checkLog({ inspector, layout, problems }: DatabaseContext): void {
  const path = `${layout.database}-wal`;
  if (inspector.walDamage !== undefined) {
    problems.add('wal-damaged', { damage: inspector.walDamage, path });
  }
  if (inspector.files.shm && !inspector.files.wal) problems.add('wal-missing', { path });
}

function checkIntegrity({ inspector, settings, progress, layout, problems }: DatabaseContext): void {
  const path = layout.database;
  const lines = messagesOf(() => inspector.integrity({ quick: settings.quick === true }));
  progress.advance(lines.length + 1);
  const ofIndexes = lines.filter((line) => OF_INDEXES.test(line));
  const ofConstraints = lines.filter((line) => !OF_INDEXES.test(line) && OF_CONSTRAINTS.test(line));
  const others = lines.filter((line) => !OF_INDEXES.test(line) && !OF_CONSTRAINTS.test(line));
  if (others.length > 0) problems.add('database-corrupt', { lines: others, path });
  if (ofConstraints.length > 0) problems.add('constraint-broken', { lines: ofConstraints, path });
  if (ofIndexes.length > 0) {
    // Indexes are built from tables, which must not be damaged.
    problems.add('index-damaged', { lines: ofIndexes, path, repairable: others.length === 0 });
  }
}

/** What the check reports. A database can be too damaged even for the check. */
function messagesOf(check: () => string[]): string[] {
  try {
    return check();
  } catch (error) {
    if (error instanceof SnapshotError && error.code === 'DATA_LOSS') return [reasonOf(error)];
    throw error;
  }
}
