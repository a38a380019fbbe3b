import type { Database } from 'better-sqlite3';
import type { Labels, Usage } from '../../snapshot.ts';
import { retryWhileBusy, DEFAULT_BUSY_TIMEOUT_MS } from '../busy.ts';
import { openDatabase } from '../open.ts';
import type { SchemaDifference } from '../schema.ts';

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

/** Corrects a damaged database, past its own triggers where they are in the way. */
export class RepairWriter {
  readonly #db: Database;

  private constructor(db: Database) {
    this.#db = db;
  }

  /** @throws {SnapshotError} as `openDatabase` */
  static async open(file: string): Promise<RepairWriter> {
    return new RepairWriter(
      await openDatabase(file, { readonly: false, busyTimeout: DEFAULT_BUSY_TIMEOUT_MS }),
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

  /** Raises the high-water mark to at least `least` and every id in use. @returns whether it was too low */
  raiseHighWater(least: number): boolean {
    const used = this.#db
      .prepare<[], number>(`
        select max(coalesce((select max(id) from snapshot), 0), coalesce((select max(id) from removal), 0))`)
      .pluck()
      .get();
    const mark = Math.max(least, used ?? 0);
    const present = this.#db.prepare<[], number>('select id from high_water').pluck().get();
    if (present === undefined) {
      this.#db.prepare('insert into high_water (only_row, id) values (1, ?)').run(mark);
      this.#db.prepare(`update sqlite_sequence set seq = max(seq, ?) where name = 'snapshot'`).run(mark);
      return true;
    }
    return this.#db.prepare('update high_water set id = ? where id < ?').run(mark, mark).changes > 0;
  }

  /**
   * Sets the usage of a snapshot. The trigger that forbids it is dropped, and created again in the same transaction.
   */
  setUsage(id: number, usage: Usage | null): void {
    const trigger = this.#db
      .prepare<[], string>(
        `select sql from sqlite_schema where type = 'trigger' and name = 'snapshot_update'`,
      )
      .pluck()
      .get();
    this.#db.exec('drop trigger if exists snapshot_update');
    this.#db
      .prepare('update snapshot set inodes = ?, size = ? where id = ?')
      .run(usage?.inodes ?? null, usage?.size ?? null, id);
    if (trigger !== undefined) this.#db.exec(trigger);
  }

  close(): void {
    this.#db.close();
  }
}
