import { quoteWhole } from '../../quote.ts';
import type { SchemaDifference } from '../../metadata/schema.ts';
import type { FindingCode } from '../../report.ts';
import type { Description } from '../description.ts';

/** Why the database cannot be opened, as the error says it. */
const asTheErrorSays = ({ error }: { error: Error }): string => error.message;

/** Why there is no database to be read, and how to get one. */
function withNextStep({ error, next }: { error: Error; next: string }): string {
  return `${error.message}: ${next}`;
}

/** What the step `database` can find. */
export const DATABASE_FINDINGS = {
  'restore-interrupted': {
    severity: 'error',
    message: () => 'a restoration of the database was interrupted: run restore again to finish it',
  },
  'database-missing': { severity: 'error', message: withNextStep },
  'not-a-database': { severity: 'error', message: withNextStep },
  'wrong-type': {
    severity: 'error',
    message: ({ what, type, wanted }: { what: string; type: string; wanted: 'file' | 'directory' }) =>
      `${what} is ${type}, not a ${wanted === 'file' ? 'regular file' : 'directory'}`,
    repair: { sentence: 'move it to lost+found', phase: 'files' },
  },
  'database-unreadable': { severity: 'error', message: withNextStep },
  'database-foreign': { severity: 'error', message: asTheErrorSays },
  'database-newer': { severity: 'warning', message: asTheErrorSays },
  'database-older': {
    severity: 'info',
    message: ({ version }: { version: number }) =>
      `the database has the older version ${version}: the next open migrates it`,
  },
  'database-oversized': {
    severity: 'warning',
    message: ({ path, excess }: { path: string; excess: number }) =>
      `${path} goes on for ${excess} bytes after the end of the database`,
  },
  'database-corrupt': {
    severity: 'error',
    message: ({ lines }: { lines: readonly string[] }) => `the database is damaged: ${summary(lines)}`,
  },
  'index-damaged': {
    severity: 'error',
    message: ({ lines }: { lines: readonly string[] }) => `an index is damaged: ${summary(lines)}`,
    repair: { sentence: 'build the indexes anew', phase: 'indexes' },
  },
  'constraint-broken': {
    severity: 'error',
    message: ({ lines }: { lines: readonly string[] }) =>
      `rows violate the constraints of their table: ${summary([...new Set(lines)])}`,
  },
  'foreign-key': {
    severity: 'error',
    message: ({ table, rows }: { table: string; rows: number }) =>
      table === 'label'
        ? `${rows} labels belong to snapshots that do not exist`
        : `${rows} rows of ${table} refer to rows that do not exist`,
    repair: {
      sentence: 'move these labels from the database to a note in lost+found',
      phase: 'rows',
      when: ({ table }: { table: string }) => table === 'label',
    },
  },
  'schema-differs': {
    severity: 'error',
    message: ({ difference: { type, name, problem } }: { difference: SchemaDifference }) =>
      ({
        extra: `the ${type} ${quoteWhole(name)} is not part of overlite's schema`,
        missing: `the ${type} ${name} is missing`,
        changed: `the ${type} ${name} is not as the migrations create it`,
      })[problem],
    repair: {
      sentence: 'make the trigger, view or index anew; keep what was added in lost+found, and drop it',
      phase: 'schema',
      exactly: ({ difference: { type, problem } }: { difference: SchemaDifference }) =>
        problem === 'extra' ? `keep the ${type} in lost+found, and drop it` : `make the ${type} anew`,
      when: ({ difference }: { difference: SchemaDifference }) =>
        difference.problem === 'extra' || difference.type !== 'table',
    },
  },
  'wal-missing': {
    severity: 'error',
    message: ({ newer }: { newer?: { highWater: number; highest: number } }) =>
      newer === undefined
        ? 'the write-ahead log is missing, but its index exists: the last changes may be missing'
        : `the database knows no id above ${newer.highWater}, but directories go up to ${newer.highest}: it was copied without its -wal, or is older than they are`,
  },
  'wal-damaged': {
    severity: 'warning',
    message: ({ damage }: { damage: string }) =>
      `the write-ahead log is damaged, or the power failed while it was written: ${damage}`,
    repair: {
      sentence: 'keep a copy of it and of the database in lost+found, and go on with what can be read',
      phase: 'files',
      unlisted: true,
    },
  },
} as const satisfies Partial<Record<FindingCode, Description>>;

function summary(lines: readonly string[]): string {
  const more = lines.length > 3 ? `, and ${lines.length - 3} more` : '';
  return lines.slice(0, 3).join('; ') + more;
}
