import type { Database, Statement } from 'better-sqlite3';
import { SnapshotError } from '../errors.ts';
import type { SnapshotRecord } from '../snapshot.ts';
import { type Condition, toCondition, toIndexQuery } from './filter-sql.ts';
import { type Selector, parseFilter } from './filter.ts';
import { RECORD, type RecordRow, toRecord } from './rows.ts';

/** Which kinds a listing is about: those that are open are found without reading those that are committed. */
export type Span = 'all' | 'committed' | 'open';

/** How many rows one page reads, so that the event loop gets its turn between two. */
const PAGE_ROWS = 512;

/** More conditions than this in one listing are refused: SQLite's expressions have their limits too. */
const MAX_SELECTORS = 500;

const spans: Readonly<Record<Span, string>> = {
  all: 'true',
  committed: `snapshot.kind = 'committed'`,
  // As in the index snapshot_open, or SQLite would not use that.
  open: `snapshot.kind <> 'committed'`,
};

/** Lists snapshots in pages. Statements are never left open, since that would keep others from writing. */
export class Listing {
  readonly #db: Database;
  readonly #highWater: Statement<[], number>;
  readonly #byIds: Statement<[string], RecordRow>;

  constructor(db: Database) {
    this.#db = db;
    this.#highWater = db.prepare<[], number>('select id from high_water').pluck();
    this.#byIds = db
      .prepare<[string], RecordRow>(`
      select ${RECORD}
        from json_each(?) as wanted
        join snapshot on snapshot.id = wanted.value
        left join snapshot as parent on parent.id = snapshot.parent_id
       order by snapshot.id`)
      .raw();
  }

  /** The pages of a listing, in the order of creation. @throws {SnapshotError} INVALID_ARGUMENT at once */
  pages(filters: readonly string[], span: Span): Iterator<SnapshotRecord[]> {
    const arms = filters.map(parseFilter);
    if (arms.flat().length > MAX_SELECTORS || arms.length > MAX_SELECTORS) {
      throw new SnapshotError('INVALID_ARGUMENT', `the filters hold more than ${MAX_SELECTORS} conditions`);
    }
    // Any filter that takes everything makes the others pointless.
    const selectors = arms.some((arm) => arm.length === 0) ? [] : arms;
    const conditions = selectors.map((arm) => allOf(arm.map(toCondition)));
    const queries = selectors.map(indexQuery);
    if (selectors.length > 0 && queries.every((query) => query !== undefined)) {
      return this.#indexed(queries.map((query, arm) => narrow(query, conditions[arm], span)));
    }
    const narrowed = span === 'all' && selectors.length > 0 && selectors.every(isOpenOnly) ? 'open' : span;
    return this.#scanned(anyOf(conditions), narrowed);
  }

  /** Collects from the indexes the ids that match, then reads their rows page by page. */
  #indexed(queries: readonly Condition[]): Iterator<SnapshotRecord[]> {
    let ids: readonly number[] | undefined;
    let at = 0;
    return pageByPage(() => {
      ids ??= this.#collect(queries);
      if (at >= ids.length) return undefined;
      const page = this.#byIds.all(JSON.stringify(ids.slice(at, at + PAGE_ROWS))).map(toRecord);
      at += PAGE_ROWS;
      return page;
    });
  }

  #collect(queries: readonly Condition[]): number[] {
    const found = new Set<number>();
    for (const { sql, values } of queries) {
      const query = this.#db.prepare<string[], number>(sql).pluck();
      for (const id of query.all(...values)) found.add(id);
    }
    return [...found].toSorted((a, b) => a - b);
  }

  /** Reads on by id, a number of rows at a time, up to the last id that there was at the beginning. */
  #scanned(condition: Condition, span: Span): Iterator<SnapshotRecord[]> {
    const pageEnd = this.#db
      .prepare<[number, number], number | null>(`
        select max(id)
          from (select id
                  from snapshot
                 where ${spans[span]}
                   and id > ?
                 order by id
                 limit ?)`)
      .pluck();
    const rows = this.#db
      .prepare<(number | string)[], RecordRow>(`
      select ${RECORD}
        from snapshot
        left join snapshot as parent on parent.id = snapshot.parent_id
       where ${spans[span]}
         and snapshot.id > ?
         and snapshot.id <= ?
         and (${condition.sql})
       order by snapshot.id`)
      .raw();
    let last: number | undefined;
    let after = 0;
    return pageByPage(() => {
      last ??= this.#highWater.get() ?? 0;
      const end = after < last ? pageEnd.get(after, PAGE_ROWS) : null;
      if (end === undefined || end === null) return undefined;
      const page = rows.all(after, Math.min(end, last), ...condition.values).map(toRecord);
      after = end;
      return page;
    });
  }
}

/** Pages until there is none. Unlike a generator, it goes on where it was when reading one has failed. */
function pageByPage(read: () => SnapshotRecord[] | undefined): Iterator<SnapshotRecord[]> {
  return {
    next() {
      const value = read();
      return value === undefined ? { done: true, value } : { done: false, value };
    },
  };
}

function allOf(conditions: readonly Condition[]): Condition {
  return {
    sql: conditions.map(({ sql }) => sql).join(' and '),
    values: conditions.flatMap(({ values }) => values),
  };
}

function anyOf(conditions: readonly Condition[]): Condition {
  if (conditions.length === 0) return { sql: 'true', values: [] };
  return {
    sql: conditions.map(({ sql }) => `(${sql})`).join(' or '),
    values: conditions.flatMap(({ values }) => values),
  };
}

/** The index query of the selector that narrows it down the most, names before parents before labels. */
function indexQuery(arm: readonly Selector[]): Condition | undefined {
  const order = ['name', 'parent', 'label', 'kind'];
  const exactFirst = arm.toSorted(
    (a, b) =>
      Number(b.operator === '==') - Number(a.operator === '==') ||
      order.indexOf(a.field) - order.indexOf(b.field),
  );
  return exactFirst.map(toIndexQuery).find((query) => query !== undefined);
}

/** Those ids of a query that fulfil the condition and are of the span. */
function narrow(query: Condition, condition: Condition | undefined, span: Span): Condition {
  return {
    sql: `
      select snapshot.id
        from snapshot
       where snapshot.id in (${query.sql})
         and ${spans[span]}
         and (${condition?.sql ?? 'true'})`,
    values: [...query.values, ...(condition?.values ?? [])],
  };
}

function isOpenOnly(arm: readonly Selector[]): boolean {
  return arm.some(
    ({ field, operator, value }) =>
      field === 'kind' && operator === '==' && (value === 'active' || value === 'view'),
  );
}
