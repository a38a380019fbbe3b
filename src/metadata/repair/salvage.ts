import { copyFileSync, existsSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import BetterSqlite3, { type Database } from 'better-sqlite3';
import { SnapshotError, toSnapshotError } from '../../errors.ts';
import { checkLabels, checkName } from '../../arguments.ts';
import { quote } from '../../quote.ts';
import type { Labels } from '../../snapshot.ts';
import { copyInto } from '../backup/files.ts';
import { DEFAULT_BUSY_TIMEOUT_MS } from '../busy.ts';
import { openDatabase } from '../open.ts';

/** How many ids are tried one by one, at the most. */
const MOST_TRIED = 5_000_000;

/** A snapshot as it was read from a damaged database, whole in itself. */
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

/** A row that was read and cannot be used. */
export interface LostRow {
  readonly id: number;
  readonly name: string | null;
  readonly why: string;
}

/** An entry of a removal journal that was left behind. */
export interface LeftRemoval {
  readonly id: number;
  readonly part: string;
  readonly state: string;
}

/** What a new database was made of. */
export interface Rebuilt {
  /** How many snapshots it has. */
  readonly snapshots: number;
  readonly lost: readonly LostRow[];
  /** The removal journal that was left behind: these directories are not going to be deleted. */
  readonly journal: readonly LeftRemoval[];
}

/** Where a damaged database is, and what is known from elsewhere. */
export interface SalvageInput {
  readonly damaged: string;
  /** The new file. */
  readonly file: string;
  /** A directory for a copy. */
  readonly scratch: string;
  /** The ids that directories are called after. */
  readonly ids: readonly number[];
}

/** Makes a new database of what SQLite can still read of a damaged one, which stays as it is. */
export async function salvage({ damaged, file, scratch, ids }: SalvageInput): Promise<Rebuilt> {
  const { rows, highWater } = readDamaged(damaged, scratch, ids);
  const { whole, lost } = sort(rows);
  const db = await openDatabase(file, { readonly: false, busyTimeout: DEFAULT_BUSY_TIMEOUT_MS });
  try {
    insert(db, whole, Math.max(highWater, 0, ...lost.map(({ id }) => id), ...whole.map(({ id }) => id)));
  } finally {
    db.close();
  }
  return { snapshots: whole.length, lost, journal: [] };
}

/**
 * Makes a new database of a backup, with an empty removal journal: what was journalled then may be something else's
 * now.
 *
 * @throws {SnapshotError} DATA_LOSS if the backup is no database, or damaged
 * @throws {SnapshotError} FAILED_PRECONDITION if it is not there, or of another application or a newer version
 */
export async function copyBackup(backup: string, file: string): Promise<Rebuilt> {
  try {
    if (!existsSync(backup))
      throw new SnapshotError('FAILED_PRECONDITION', `there is no backup ${quote(backup)}`);
    const from = new BetterSqlite3(backup, { readonly: true, fileMustExist: true });
    try {
      copyInto(from, file);
    } finally {
      from.close();
    }
    const db = await openDatabase(file, {
      readonly: false,
      busyTimeout: DEFAULT_BUSY_TIMEOUT_MS,
      backup: false,
    });
    try {
      const journal = db
        .prepare<[], LeftRemoval>('select id, part, state from removal order by id, part')
        .all();
      db.prepare('delete from removal').run();
      const snapshots = db.prepare<[], number>('select count(*) from snapshot').pluck().get() ?? 0;
      return { snapshots, lost: [], journal };
    } finally {
      db.close();
    }
  } catch (error) {
    throw toSnapshotError(error, `reading the backup ${quote(backup)}`);
  }
}

type Raw = Record<string, unknown> & { id: number };

function readDamaged(
  damaged: string,
  scratch: string,
  ids: readonly number[],
): { rows: { raw: Raw; labels: Labels }[]; highWater: number } {
  for (const withLog of [true, false]) {
    const copy = join(scratch, 'damaged.db');
    for (const suffix of ['', '-wal', '-shm']) rmSync(`${copy}${suffix}`, { force: true });
    if (!existsSync(damaged)) break;
    copyFileSync(damaged, copy);
    if (withLog && existsSync(`${damaged}-wal`)) copyFileSync(`${damaged}-wal`, `${copy}-wal`);
    let db: Database | undefined;
    try {
      db = new BetterSqlite3(copy);
      // Whatever else is wrong with the schema, the tables may be readable.
      db.unsafeMode(true);
      db.pragma('writable_schema = on');
      const opened = db;
      const highWater =
        attempt(() => opened.prepare<[], number>('select id from high_water').pluck().get()) ?? 0;
      const rows = readRows(opened, [...ids], highWater);
      if (rows.length > 0 || !withLog) return { rows, highWater };
    } catch {
      // Without its log it may still be readable.
    } finally {
      db?.close();
    }
  }
  return { rows: [], highWater: 0 };
}

/** Reads rows from both ends of the table, and then one by one: a damaged page hides what comes after it. */
function readRows(db: Database, known: number[], highWater: number): { raw: Raw; labels: Labels }[] {
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
    db.prepare<[number], { key: string; value: string }>(
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

/** What `body` gives, unless what it reads is damaged. */
function attempt<T>(body: () => T): T | undefined {
  try {
    return body();
  } catch {
    return undefined;
  }
}

/** Keeps the rows that are whole in themselves and stand on such ones, and says of the others why they are lost. */
function sort(read: readonly { raw: Raw; labels: Labels }[]): { whole: Salvaged[]; lost: LostRow[] } {
  const whole = new Map<number, Salvaged>();
  const names = new Set<string>();
  const lost: LostRow[] = [];
  for (const { raw, labels } of read) {
    try {
      const row = toSalvaged(raw, labels);
      if (names.has(row.name)) throw new Error('another one has the same name');
      names.add(row.name);
      whole.set(row.id, row);
    } catch (error) {
      const name = typeof raw['name'] === 'string' ? raw['name'] : null;
      lost.push({ id: raw.id, name, why: error instanceof Error ? error.message : String(error) });
    }
  }
  const stands = new Map<number, boolean>();
  const isSound = (id: number, path: Set<number>): boolean => {
    const row = whole.get(id);
    if (row === undefined || path.has(id)) return false;
    let sound = stands.get(id);
    if (sound === undefined) {
      path.add(id);
      const parent = row.parentId === null ? undefined : whole.get(row.parentId);
      sound = row.parentId === null || (parent?.kind === 'committed' && isSound(row.parentId, path));
      stands.set(id, sound);
    }
    return sound;
  };
  const kept: Salvaged[] = [];
  for (const row of whole.values()) {
    if (isSound(row.id, new Set())) kept.push(row);
    else lost.push({ id: row.id, name: row.name, why: 'what it stands on is lost' });
  }
  return { whole: kept, lost };
}

function toSalvaged(raw: Raw, labels: Labels): Salvaged {
  const { id, kind } = raw;
  if (kind !== 'active' && kind !== 'view' && kind !== 'committed') throw new Error('it is of no known kind');
  if (!Number.isSafeInteger(id) || id < 1) throw new Error('its id is none');
  const committed = kind === 'committed';
  return {
    id,
    name: checkName(raw['name'], 'name'),
    kind,
    parentId: integer(raw['parent_id']),
    createdUs: integer(raw['created_us']) ?? 0,
    updatedUs: integer(raw['updated_us']) ?? 0,
    inodes: committed ? (integer(raw['inodes']) ?? 0) : null,
    size: committed ? (integer(raw['size']) ?? 0) : null,
    seal: committed && typeof raw['seal'] === 'string' ? raw['seal'] : null,
    inUse: committed && (raw['in_use'] === 0 || raw['in_use'] === 1) ? raw['in_use'] : null,
    volatileBoot: kind === 'active' && typeof raw['volatile_boot'] === 'string' ? raw['volatile_boot'] : null,
    labels: attempt(() => checkLabels(labels)) ?? {},
  };
}

function integer(value: unknown): number | null {
  if (value === null || value === undefined) return null;
  if (typeof value === 'number' && Number.isSafeInteger(value) && value >= 0) return value;
  throw new Error('a number in it is none');
}

/** Writes rows in any order: the rules are put back in their place before anyone can see it. */
function insert(db: Database, rows: readonly Salvaged[], highWater: number): void {
  const write = db.transaction(() => {
    const rules = db
      .prepare<[], { name: string; sql: string }>(
        `select name, sql from sqlite_schema where type = 'trigger'`,
      )
      .all();
    for (const { name } of rules) db.exec(`drop trigger "${name}"`);
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
    for (const { sql } of rules) db.exec(sql);
  });
  write.immediate();
}
