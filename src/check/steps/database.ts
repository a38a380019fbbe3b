import { existsSync } from 'node:fs';
import { SnapshotError } from '../../errors.ts';
import { Inspector, UnopenableError, type Unopenable } from '../../metadata/inspector.ts';
import type { FindingCode } from '../findings.ts';
import type { Subject } from '../subject.ts';

const CODES: Readonly<Record<Unopenable, FindingCode>> = {
  missing: 'database-missing',
  'not-a-database': 'not-a-database',
  foreign: 'database-foreign',
  newer: 'database-newer',
  unreadable: 'database-unreadable',
};

/** Opens the database for all steps. Whether it can be read. */
export function openDatabaseOf(subject: Subject, scratch: () => string): boolean {
  const { layout } = subject;
  if (existsSync(layout.restoring)) {
    subject.add('restore-interrupted', {
      message: 'a restoration of the database was interrupted: restore once more, which finishes it',
      path: layout.restoring,
    });
    return false;
  }
  try {
    subject.inspector = Inspector.open(layout.database, scratch);
    return true;
  } catch (error) {
    if (!(error instanceof UnopenableError)) throw error;
    subject.add(CODES[error.reason], { message: error.message, path: layout.database });
    return false;
  }
}

/** Tells of damage that came to light while the database was read, unless more is known of it already. */
export function addCorruption(subject: Subject, { message }: SnapshotError): void {
  if (subject.has('database-corrupt')) return;
  subject.add('database-corrupt', { message, path: subject.layout.database });
}

/** Reads the rows that the other steps go by, as they are at one moment. Whether all could be read. */
export function readRows(subject: Subject): boolean {
  const { inspector, snapshots, removals } = subject;
  try {
    inspector.atOnce(() => {
      for (const snapshot of inspector.snapshots()) snapshots.set(snapshot.id, snapshot);
      for (const removal of inspector.removals()) {
        removals.set(removal.id, [...(removals.get(removal.id) ?? []), removal]);
      }
      subject.highWater = inspector.highWater();
    });
    return true;
  } catch (error) {
    if (!(error instanceof SnapshotError) || error.code === 'UNAVAILABLE') throw error;
    addCorruption(subject, error);
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
export function checkDatabase(subject: Subject): void {
  const { inspector, layout } = subject;
  const path = layout.database;
  if (inspector.outdated) {
    subject.add('database-older', {
      message: `the database has the older version ${inspector.version}: the next open brings it up to date`,
      path,
    });
  }
  if (inspector.walDamage !== undefined) {
    subject.add('wal-damaged', {
      message: `the write-ahead log is damaged, or the power was cut while it was written: ${inspector.walDamage}`,
      path: `${path}-wal`,
      repair: 'keep a copy of it and of the database in lost+found, and go on with what can be read',
    });
  }
  if (inspector.files.shm && !inspector.files.wal) {
    subject.add('wal-missing', {
      message:
        'the index of a write-ahead log is there, but not the log: what was last written may be missing',
      path: `${path}-wal`,
    });
  }
  const quick = subject.settings.quick === true;
  const lines = messagesOf(() => inspector.integrity({ quick }));
  subject.looked(lines.length + 1);
  const rest = lines.filter((line) => !OF_INDEXES.test(line));
  const constraints = rest.filter((line) => OF_CONSTRAINTS.test(line));
  if (rest.length > constraints.length) {
    const message = `the database is damaged: ${summary(rest.filter((line) => !OF_CONSTRAINTS.test(line)))}`;
    subject.add('database-corrupt', { message, path });
  }
  if (constraints.length > 0) {
    subject.add('constraint-broken', {
      message: `rows are not as their table wants them: ${summary([...new Set(constraints)])}`,
      path,
    });
  }
  if (lines.length > rest.length) {
    subject.add('index-damaged', {
      message: `an index is damaged: ${summary(lines.filter((line) => OF_INDEXES.test(line)))}`,
      path,
      ...(rest.length > constraints.length && { repair: null }),
    });
  }
  checkSchema(subject);
  if (subject.has('database-corrupt')) return;
  for (const { table, rows } of inspector.foreignKeys()) {
    subject.looked(rows);
    const labels = table === 'label';
    subject.add('foreign-key', {
      message: labels
        ? `${rows} labels are of snapshots that are not there`
        : `${rows} rows of ${table} refer to rows that are not there`,
      path,
      repair: labels ? 'write these labels down in lost+found, and take them out of the database' : null,
    });
  }
}

function checkSchema(subject: Subject): void {
  const { inspector, layout } = subject;
  for (const difference of inspector.schema()) {
    subject.looked();
    const { type, name, problem } = difference;
    const extra = problem === 'extra';
    subject.add('schema-differs', {
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
