import { existsSync } from 'node:fs';
import { SnapshotError } from '../../errors.ts';
import { Inspector } from '../../metadata/repair/inspector.ts';
import { UnopenableError, type Unopenable } from '../../metadata/repair/open-unchanged.ts';
import type { CheckContext } from '../context.ts';
import type { FindingCode } from '../../report.ts';

const CODES: Readonly<Record<Unopenable, FindingCode>> = {
  missing: 'database-missing',
  'not-a-database': 'not-a-database',
  foreign: 'database-foreign',
  newer: 'database-newer',
  unreadable: 'database-unreadable',
};

/** Opens the database for all steps. Whether it can be read. */
export function openDatabaseOf(context: CheckContext, scratch: () => string): boolean {
  const { layout } = context;
  if (existsSync(layout.restoring)) {
    context.add('restore-interrupted', {
      message: 'a restoration of the database was interrupted: restore once more, which finishes it',
      path: layout.restoring,
    });
    return false;
  }
  try {
    context.inspector = Inspector.open(layout.database, scratch);
    return true;
  } catch (error) {
    if (!(error instanceof UnopenableError)) throw error;
    context.add(CODES[error.reason], { message: error.message, path: layout.database });
    return false;
  }
}

/** Tells of damage that came to light while the database was read, unless more is known of it already. */
export function addCorruption(context: CheckContext, { message }: SnapshotError): void {
  if (context.has('database-corrupt')) return;
  context.add('database-corrupt', { message, path: context.layout.database });
}

/** Reads the rows that the other steps go by, as they are at one moment. Whether all could be read. */
export function readRows(context: CheckContext): boolean {
  const { inspector, snapshots, removals } = context;
  try {
    inspector.atOnce(() => {
      for (const snapshot of inspector.snapshots()) snapshots.set(snapshot.id, snapshot);
      for (const removal of inspector.removals()) {
        removals.set(removal.id, [...(removals.get(removal.id) ?? []), removal]);
      }
      context.highWater = inspector.highWater();
    });
    return true;
  } catch (error) {
    if (!(error instanceof SnapshotError) || error.code === 'UNAVAILABLE') throw error;
    addCorruption(context, error);
    return false;
  }
}

/** What SQLite says where an index, and no more than that, is damaged. */
const OF_INDEXES =
  /missing from index|wrong # of entries in index|non-unique entry in index|differ from index/i;

/** What it says where a row is not as the table's declaration wants it. */
const OF_CONSTRAINTS =
  /^(CHECK constraint failed|NULL value in|NUMERIC value in|TEXT value in|non-\w+ value in)/;

/** The file itself: whether it is whole, its schema, and its log. */
export function checkDatabase(context: CheckContext): void {
  const { inspector, layout } = context;
  const path = layout.database;
  if (inspector.outdated) {
    context.add('database-older', {
      message: `the database has the older version ${inspector.version}: the next open brings it up to date`,
      path,
    });
  }
  if (inspector.walDamage !== undefined) {
    context.add('wal-damaged', {
      message: `the write-ahead log is damaged, or the power was cut while it was written: ${inspector.walDamage}`,
      path: `${path}-wal`,
      repair: 'keep a copy of it and of the database in lost+found, and go on with what can be read',
    });
  }
  if (inspector.files.shm && !inspector.files.wal) {
    context.add('wal-missing', {
      message:
        'the index of a write-ahead log is there, but not the log: what was last written may be missing',
      path: `${path}-wal`,
    });
  }
  const quick = context.settings.quick === true;
  const lines = messagesOf(() => inspector.integrity({ quick }));
  context.looked(lines.length + 1);
  const rest = lines.filter((line) => !OF_INDEXES.test(line));
  const constraints = rest.filter((line) => OF_CONSTRAINTS.test(line));
  if (rest.length > constraints.length) {
    const message = `the database is damaged: ${summary(rest.filter((line) => !OF_CONSTRAINTS.test(line)))}`;
    context.add('database-corrupt', { message, path });
  }
  if (constraints.length > 0) {
    context.add('constraint-broken', {
      message: `rows are not as their table wants them: ${summary([...new Set(constraints)])}`,
      path,
    });
  }
  if (lines.length > rest.length) {
    context.add('index-damaged', {
      message: `an index is damaged: ${summary(lines.filter((line) => OF_INDEXES.test(line)))}`,
      path,
      ...(rest.length > constraints.length && { repair: null }),
    });
  }
  checkSchema(context);
  if (context.has('database-corrupt')) return;
  for (const { table, rows } of inspector.foreignKeys()) {
    context.looked(rows);
    const labels = table === 'label';
    context.add('foreign-key', {
      message: labels
        ? `${rows} labels are of snapshots that are not there`
        : `${rows} rows of ${table} refer to rows that are not there`,
      path,
      repair: labels ? 'write these labels down in lost+found, and take them out of the database' : null,
    });
  }
}

function checkSchema(context: CheckContext): void {
  const { inspector, layout } = context;
  for (const difference of inspector.schema()) {
    context.looked();
    const { type, name, problem } = difference;
    const extra = problem === 'extra';
    context.add('schema-differs', {
      message: extra
        ? `there is a ${type} ${name} that is not of overlite`
        : `the ${type} ${name} is ${problem === 'missing' ? 'missing' : 'not as it was made'}`,
      path: layout.database,
      severity: extra ? 'warning' : 'error',
      repair: extra || type === 'table' ? null : `make the ${type} anew`,
      difference,
    });
  }
}

/** A database can be too damaged even for this. */
function messagesOf(check: () => string[]): string[] {
  try {
    return check();
  } catch (error) {
    if (error instanceof SnapshotError && error.code === 'DATA_LOSS') return [error.message];
    throw error;
  }
}

function summary(lines: readonly string[]): string {
  const more = lines.length > 3 ? `, and ${lines.length - 3} more` : '';
  return lines.slice(0, 3).join('; ') + more;
}
