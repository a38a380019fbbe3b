import { rmSync } from 'node:fs';
import { join } from 'node:path';
import BetterSqlite3, { type Database } from 'better-sqlite3';
import { toSnapshotError } from '../../errors.ts';
import { copyFile } from '../../linux/copy-file.ts';
import { statPlain } from '../../linux/plain-file.ts';
import { checkLabels, checkName } from '../../arguments.ts';
import type { Labels } from '../../snapshot.ts';
import { DEFAULT_BUSY_TIMEOUT_MS } from '../busy.ts';
import { openDatabase } from '../open.ts';
import { missingTables } from '../schema.ts';
import { plausibleId } from './plausible-id.ts';
import type { LostRow, Rebuilt } from './rebuilt.ts';

/** If ids go beyond this, only those with a directory are read one by one. */
const MOST_TRIED = 5_000_000;

/** A valid row, with its labels, read from a damaged database. */
interface Salvaged {
  readonly id: number;
  readonly name: string;
  readonly kind: 'active' | 'view' | 'committed';
  readonly parentId: number | null;
  readonly createdUs: number;
  readonly updatedUs: number;
  readonly inodes: number | null;
  readonly size: number | null;
  readonly seal: string | null;
  readonly inUse: number | null;
  readonly volatileBoot: string | null;
  readonly labels: Labels;
}

/** A damaged database, and what is known from elsewhere. */
export interface SalvageInput {
  readonly damaged: string;
  /** The new database. */
  readonly file: string;
  /** A directory for a copy of the damaged database. */
  readonly scratch: string;
  /** The ids that have a directory. */
  readonly ids: readonly number[];
}

/** Creates a new database from what SQLite can still read of a damaged one, which is not changed. */
export async function salvage({ damaged, file, scratch, ids: known }: SalvageInput): Promise<Rebuilt> {
  const { rows, highWater } = readDamaged(damaged, scratch, known);
  const { kept, lost } = sort(rows);
  const ids = [...kept.map((row) => row.id), ...lost.map((row) => plausibleId(row.id))];
  const highest = ids.reduce((most, id) => Math.max(most, id), highWater);
  const db = await openDatabase(file, { readonly: false, busyTimeout: DEFAULT_BUSY_TIMEOUT_MS });
  try {
    insert(db, kept, highest);
  } finally {
    db.close();
  }
  return { snapshots: kept.length, lost, journal: [] };
}

type Raw = Record<string, unknown> & { id: number };

/** A row as it was read, and its labels. */
interface ReadRow {
  readonly raw: Raw;
  readonly labels: Labels;
}

function readDamaged(
  damaged: string,
  scratch: string,
  ids: readonly number[],
): { rows: ReadRow[]; highWater: number } {
  for (const withLog of [true, false]) {
    const copy = join(scratch, 'damaged.db');
    for (const suffix of ['', '-wal', '-shm']) rmSync(`${copy}${suffix}`, { force: true });
    if (statPlain(damaged) === undefined) break;
    copyFile(damaged, copy);
    if (withLog && statPlain(`${damaged}-wal`) !== undefined) copyFile(`${damaged}-wal`, `${copy}-wal`);
    let db: Database | undefined;
    try {
      db = new BetterSqlite3(copy);
      // Even if the rest of the schema is damaged, the tables may be readable.
      db.unsafeMode(true);
      db.pragma('writable_schema = on');
      const opened = db;
      const missing = missingTables(opened);
      if (missing.includes('snapshot')) continue;
      const highWater = missing.includes('high_water')
        ? 0
        : plausibleId(attempt(() => opened.prepare<[]>('select id from high_water').pluck().get()));
      const rows = readRows(opened, [...ids], { highWater, labelled: !missing.includes('label') });
      if (rows.length > 0 || !withLog) return { rows, highWater };
    } catch {
      // It may still be readable without its log.
    } finally {
      db?.close();
    }
  }
  return { rows: [], highWater: 0 };
}

/** Reads rows from both ends of the table, then one by one: a damaged page hides the rows after it. */
function readRows(
  db: Database,
  known: number[],
  { highWater, labelled }: { highWater: number; labelled: boolean },
): ReadRow[] {
  const found = new Map<number, Raw>();
  for (const order of ['asc', 'desc']) {
    attempt(() => {
      for (const row of db.prepare<[], Raw>(`select * from snapshot order by id ${order}`).iterate()) {
        found.set(row.id, row);
      }
    });
  }
  const one = attempt(() => db.prepare<[number], Raw>('select * from snapshot where id = ?'));
  const highest = known.reduce((most, id) => Math.max(most, id), highWater);
  const tried = highest <= MOST_TRIED ? Array.from({ length: highest }, (_, index) => index + 1) : known;
  for (const id of tried) {
    if (found.has(id)) continue;
    const row = attempt(() => one?.get(id));
    if (row !== undefined) found.set(id, row);
  }
  const labels = attempt(() =>
    !labelled
      ? undefined
      : db.prepare<[number], { key: string; value: string }>(
          'select key, value from label where snapshot_id = ?',
        ),
  );
  return [...found.values()]
    .toSorted((a, b) => a.id - b.id)
    .map((raw) => {
      const read = attempt(() => labels?.all(raw.id)) ?? [];
      return { raw, labels: Object.fromEntries(read.map(({ key, value }) => [key, value])) };
    });
}

/** The result of `body`; `undefined` if what it reads is damaged. */
function attempt<T>(body: () => T): T | undefined {
  try {
    return body();
  } catch {
    return undefined;
  }
}

/** Keeps the rows that are valid and have valid ancestors, and says why the others are lost. */
function sort(read: readonly ReadRow[]): { kept: Salvaged[]; lost: LostRow[] } {
  const valid = new Map<number, Salvaged>();
  const names = new Set<string>();
  const lost: LostRow[] = [];
  for (const { raw, labels } of read) {
    const row = toSalvaged(raw, labels);
    if ('why' in row) {
      lost.push({ id: raw.id, name: typeof raw['name'] === 'string' ? raw['name'] : null, why: row.why });
    } else if (names.has(row.name)) {
      lost.push({ id: row.id, name: row.name, why: 'another snapshot has the same name' });
    } else {
      names.add(row.name);
      valid.set(row.id, row);
    }
  }
  const known = new Map<number, boolean>();
  const isSound = (id: number, path: Set<number>): boolean => {
    const row = valid.get(id);
    if (row === undefined || path.has(id)) return false;
    let sound = known.get(id);
    if (sound === undefined) {
      path.add(id);
      const parent = row.parentId === null ? undefined : valid.get(row.parentId);
      sound = row.parentId === null || (parent?.kind === 'committed' && isSound(row.parentId, path));
      known.set(id, sound);
    }
    return sound;
  };
  const kept: Salvaged[] = [];
  for (const row of valid.values()) {
    if (isSound(row.id, new Set())) kept.push(row);
    else lost.push({ id: row.id, name: row.name, why: 'one of its ancestors is lost' });
  }
  return { kept, lost };
}

/** Checks a row that was read. @returns the row, or why it cannot be used */
function toSalvaged(raw: Raw, labels: Labels): Salvaged | { readonly why: string } {
  const { id, kind } = raw;
  if (kind !== 'active' && kind !== 'view' && kind !== 'committed') return { why: 'it has an unknown kind' };
  if (!Number.isSafeInteger(id) || id < 1) return { why: 'its id is not a positive integer' };
  const name = toName(raw['name']);
  if (typeof name !== 'string') return name;
  const committed = kind === 'committed';
  const columns = ['parent_id', 'created_us', 'updated_us', ...(committed ? ['inodes', 'size'] : [])];
  const wrong = columns.find((column) => (raw[column] ?? null) !== null && !isCount(raw[column]));
  if (wrong !== undefined) return { why: `its ${wrong} is not an integer of at least 0` };
  const count = (column: string): number | null => (isCount(raw[column]) ? raw[column] : null);
  return {
    id,
    name,
    kind,
    parentId: count('parent_id'),
    createdUs: count('created_us') ?? 0,
    updatedUs: count('updated_us') ?? 0,
    inodes: committed ? (count('inodes') ?? 0) : null,
    size: committed ? (count('size') ?? 0) : null,
    seal: committed && typeof raw['seal'] === 'string' ? raw['seal'] : null,
    inUse: committed && (raw['in_use'] === 0 || raw['in_use'] === 1) ? raw['in_use'] : null,
    volatileBoot: kind === 'active' && typeof raw['volatile_boot'] === 'string' ? raw['volatile_boot'] : null,
    labels: attempt(() => checkLabels(labels)) ?? {},
  };
}

function toName(value: unknown): string | { readonly why: string } {
  try {
    return checkName(value, 'name');
  } catch (error) {
    return { why: toSnapshotError(error, 'reading its name').message };
  }
}

function isCount(value: unknown): value is number {
  return typeof value === 'number' && Number.isSafeInteger(value) && value >= 0;
}

/** Writes rows in any order: the triggers are dropped, and created again within the same transaction. */
function insert(db: Database, rows: readonly Salvaged[], highWater: number): void {
  const write = db.transaction(() => {
    const triggers = db
      .prepare<[], { name: string; sql: string }>(
        `select name, sql from sqlite_schema where type = 'trigger'`,
      )
      .all();
    for (const { name } of triggers) db.exec(`drop trigger "${name}"`);
    const row = db.prepare(`
      insert into snapshot (id, name, kind, parent_id, created_us, updated_us, inodes, size, seal, in_use, volatile_boot)
      values (:id, :name, :kind, :parentId, :createdUs, :updatedUs, :inodes, :size, :seal, :inUse, :volatileBoot)`);
    const label = db.prepare('insert into label (snapshot_id, key, value) values (?, ?, ?)');
    db.pragma('defer_foreign_keys = on');
    for (const { labels, ...columns } of rows) {
      row.run(columns);
      for (const [key, value] of Object.entries(labels)) label.run(columns.id, key, value);
    }
    db.prepare('update high_water set id = ?').run(highWater);
    db.prepare(`update sqlite_sequence set seq = ? where name = 'snapshot'`).run(highWater);
    for (const { sql } of triggers) db.exec(sql);
  });
  write.immediate();
}
