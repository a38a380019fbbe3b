import type { Database } from 'better-sqlite3';
import type { Labels, Usage } from '../../snapshot.ts';
import { retryWhileBusy, DEFAULT_BUSY_TIMEOUT_MS } from '../busy.ts';
import { openDatabase } from '../open.ts';
import type { SchemaDifference } from '../schema.ts';
import { plausibleId } from './plausible-id.ts';

/** By how much a mark that is set anew goes beyond every id of which there is a trace. */
const UNSEEN_IDS = 1_000_000;

/** The columns of a snapshot that repair needs, read under the lock. */
export interface RowToRepair {
  readonly id: number;
  readonly kind: string;
  readonly parentId: number | null;
  readonly inodes: number | null;
  readonly size: number | null;
}

/** A row that was removed from the database, with all its columns. */
export type TakenRow = Readonly<Record<string, unknown>>;

/** A name as SQL has it. */
function quoteName(name: string): string {
  return `"${name.replaceAll('"', '""')}"`;
}

/** Corrects a damaged database, past its own triggers where they are in the way. */
export class RepairWriter {
  readonly #db: Database;

  private constructor(db: Database) {
    this.#db = db;
  }

  /** @throws {SnapshotError} as `openDatabase` */
  static async open(file: string): Promise<RepairWriter> {
    return new RepairWriter(
      await openDatabase(file, { readonly: false, busyTimeout: DEFAULT_BUSY_TIMEOUT_MS, repair: true }),
    );
  }

  /** Runs `body` with the write lock held, all or nothing. */
  async locked<T>(body: () => T): Promise<T> {
    const transaction = this.#db.transaction(body);
    return retryWhileBusy(() => transaction.immediate(), DEFAULT_BUSY_TIMEOUT_MS, 'repairing');
  }

  /** The snapshot with an id. */
  snapshot(id: number): RowToRepair | undefined {
    return this.#db
      .prepare<[number], RowToRepair>(`
        select id, kind, parent_id as parentId, inodes, size
          from snapshot
         where id = ?`)
      .get(id);
  }

  labels(id: number): Labels {
    const rows = this.#db
      .prepare<[number], { key: string; value: string }>('select key, value from label where snapshot_id = ?')
      .all(id);
    return Object.fromEntries(rows.map(({ key, value }) => [key, value]));
  }

  /** The parts of an id that the removal journal names. */
  journalled(id: number): string[] {
    return this.#db.prepare<[number], string>('select part from removal where id = ?').pluck().all(id);
  }

  /** Creates a view, trigger or index as the migrations do. */
  remake({ type, name, sql }: SchemaDifference): void {
    if (sql === undefined || !['view', 'trigger', 'index'].includes(type)) return;
    this.#db.exec(`drop ${type} if exists "${name}"`);
    this.#db.exec(sql);
  }

  /** The SQL of an object that is not ours; `undefined` if it is not there any more. */
  sqlOf({ type, name }: SchemaDifference): string | undefined {
    return this.#db
      .prepare<[string, string], string>(`
        select coalesce(sql, '') from sqlite_schema where type = ? and name = ?`)
      .pluck()
      .get(type, name);
  }

  /** The rows of a table that is not ours. */
  rowsOf({ name }: SchemaDifference): IterableIterator<TakenRow> {
    return this.#db.prepare<[], TakenRow>(`select * from ${quoteName(name)}`).iterate();
  }

  /** Drops a table, view, trigger or index that is not ours. */
  drop({ type, name }: SchemaDifference): void {
    if (!['table', 'view', 'trigger', 'index'].includes(type)) return;
    this.#db.exec(`drop ${type} if exists ${quoteName(name)}`);
  }

  /** Rebuilds all indexes from their tables. */
  reindex(): void {
    this.#db.exec('reindex');
  }

  /** Removes the labels that belong to no snapshot. @returns them */
  takeStrayLabels(): TakenRow[] {
    return this.#db
      .prepare<[], TakenRow>(
        'delete from label where snapshot_id not in (select id from snapshot) returning *',
      )
      .all();
  }

  /** Removes the entries of the removal journal that contradict an existing snapshot. @returns them */
  takeContradictions(id: number): TakenRow[] {
    return this.#db
      .prepare<[number], TakenRow>(`
        delete from removal
         where id = ?
           and exists (
                 select 1
                   from snapshot
                  where snapshot.id = removal.id
                    and not (removal.part = 'work' and snapshot.kind = 'committed')
               )
        returning *`)
      .all(id);
  }

  /**
   * Raises the high-water mark to at least `least` and every id in use. A mark that no store can have come to is lowered
   * to that, and some more, since ids may have been assigned of which there is no trace.
   *
   * @returns whether it was wrong
   */
  correctHighWater(least: number): boolean {
    const used = this.#db.prepare<[], number>('select coalesce(max(id), 0) from snapshot').pluck().get() ?? 0;
    const journalled = this.#db.prepare<[], number>('select id from removal').pluck().all();
    const mark = journalled.reduce((most, id) => Math.max(most, plausibleId(id)), Math.max(least, used));
    const present = this.#db.prepare<[], number>('select id from high_water').pluck().get();
    if (present === undefined) {
      this.#db.prepare('insert into high_water (only_row, id) values (1, ?)').run(mark);
      this.#db.prepare(`update sqlite_sequence set seq = max(seq, ?) where name = 'snapshot'`).run(mark);
      return true;
    }
    const sequence = this.#db
      .prepare<[], number>(`select max(cast(seq as integer)) from sqlite_sequence where name = 'snapshot'`)
      .pluck()
      .get();
    // A snapshot keeps the id that it has.
    const isPlausible = (id: number): boolean => id <= Math.max(used, plausibleId(id));
    if (!isPlausible(present) || !isPlausible(sequence ?? 0)) {
      this.#setHighWater(Math.max(mark, plausibleId(present)) + UNSEEN_IDS);
      return true;
    }
    return this.#db.prepare('update high_water set id = ? where id < ?').run(mark, mark).changes > 0;
  }

  /** Sets the mark, and the id after which SQLite goes on. The rule that a mark only grows is dropped meanwhile. */
  #setHighWater(mark: number): void {
    this.#without('high_water_update', () => {
      this.#db.prepare('update high_water set id = ?').run(mark);
    });
    this.#db.prepare(`update sqlite_sequence set seq = ? where name = 'snapshot'`).run(mark);
  }

  /** Runs `body` while a trigger is dropped, which is created again in the same transaction. */
  #without(trigger: string, body: () => void): void {
    const sql = this.#db
      .prepare<[string], string>(`select sql from sqlite_schema where type = 'trigger' and name = ?`)
      .pluck()
      .get(trigger);
    this.#db.exec(`drop trigger if exists ${trigger}`);
    body();
    if (sql !== undefined) this.#db.exec(sql);
  }

  /**
   * Sets the usage of a snapshot. The trigger that forbids it is dropped, and created again in the same transaction.
   */
  setUsage(id: number, usage: Usage | null): void {
    this.#without('snapshot_update', () => {
      this.#db
        .prepare('update snapshot set inodes = ?, size = ? where id = ?')
        .run(usage?.inodes ?? null, usage?.size ?? null, id);
    });
  }

  close(): void {
    this.#db.close();
  }
}
