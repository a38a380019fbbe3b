import type { Database, Statement } from 'better-sqlite3';
import { SnapshotError } from '../errors.ts';
import type { SnapshotRecord } from '../snapshot.ts';
import { type Condition, toCondition, toIndexQuery, withinMatchTime } from './filter-sql.ts';
import { MAX_PATTERN_LENGTH, type Selector, parseFilter, patternSize } from './filter.ts';
import { RECORD, type RecordRow, toRecord } from './rows.ts';

/** The kinds that are listed. Open snapshots are found without reading committed ones. */
export type Span = 'all' | 'committed' | 'open';

/** How many rows a page holds. Between two pages the event loop gets its turn. */
const PAGE_ROWS = 512;

/** How long patterns are matched at a time, in milliseconds: meanwhile the event loop is blocked. */
const MATCH_MS = 20;

/** The most conditions in one listing: SQLite limits the size of expressions. */
const MAX_SELECTORS = 500;

const spans: Readonly<Record<Span, string>> = {
  all: 'true',
  committed: `snapshot.kind = 'committed'`,
  // As in the index snapshot_open, or SQLite would not use that.
  open: `snapshot.kind <> 'committed'`,
};

/** Lists snapshots in pages. No statement stays open between two pages, since that would keep others from writing. */
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
    const patterns = arms.flat().filter(({ operator }) => operator === '~=');
    if (patterns.reduce((sum, { value }) => sum + patternSize(value), 0) > MAX_PATTERN_LENGTH) {
      throw new SnapshotError('INVALID_ARGUMENT', 'the patterns of the filters are too large together', {
        hint: `with their counted repetitions written out they may have ${MAX_PATTERN_LENGTH} characters`,
      });
    }
    // A filter that every snapshot matches makes the others pointless.
    const selectors = arms.some((arm) => arm.length === 0) ? [] : arms;
    const conditions = selectors.map((arm) => allOf(arm.map(toCondition)));
    const queries = selectors.map(indexQuery);
    if (selectors.length > 0 && queries.every((query) => query !== undefined)) {
      if (patterns.length > 0) return this.#matched(queries, anyOf(conditions), span);
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
      ids ??= this.#idsOf(queries);
      if (at >= ids.length) return undefined;
      const page = this.#byIds.all(JSON.stringify(ids.slice(at, at + PAGE_ROWS))).map(toRecord);
      at += PAGE_ROWS;
      return page;
    });
  }

  /** Collects from the indexes the ids that may match, then reads page by page the rows that do. */
  #matched(queries: readonly Condition[], condition: Condition, span: Span): Iterator<SnapshotRecord[]> {
    const page = this.#db
      .prepare<string[], RecordRow>(`
      select ${RECORD}
        from json_each(?) as wanted
        join snapshot on snapshot.id = wanted.value
        left join snapshot as parent on parent.id = snapshot.parent_id
       where ${spans[span]}
         and (${condition.sql})
       order by snapshot.id`)
      .raw();
    let ids: readonly number[] | undefined;
    let at = 0;
    const size = new PageSize();
    return pageByPage(() => {
      ids ??= this.#idsOf(queries);
      if (at >= ids.length) return undefined;
      const { rows } = size;
      const wanted = JSON.stringify(ids.slice(at, at + rows));
      const read = size.attempt(() => page.all(wanted, ...condition.values));
      if (read !== undefined) at += rows;
      return (read ?? []).map(toRecord);
    });
  }

  /** The ids that any of the queries gives, in their order. */
  #idsOf(queries: readonly Condition[]): number[] {
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
    const page = this.#db
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
    const size = new PageSize();
    return pageByPage(() => {
      last ??= this.#highWater.get() ?? 0;
      const end = after < last ? pageEnd.get(after, size.rows) : null;
      if (end === undefined || end === null) return undefined;
      const [from, to] = [after, Math.min(end, last)];
      const read = size.attempt(() => page.all(from, to, ...condition.values));
      if (read !== undefined) after = end;
      return (read ?? []).map(toRecord);
    });
  }
}

/** Iterates over pages. Unlike a generator, it can go on after the reading of a page has failed. */
function pageByPage(read: () => SnapshotRecord[] | undefined): Iterator<SnapshotRecord[]> {
  return {
    next() {
      const value = read();
      return value === undefined ? { done: true, value } : { done: false, value };
    },
  };
}

/** How many rows a page holds: fewer where matching them against patterns would block the event loop for long. */
class PageSize {
  rows = PAGE_ROWS;

  /** Reads a page. @returns `undefined` if that took too long, so that a smaller one is to be read */
  attempt<T>(read: () => T): T | undefined {
    const result = this.rows === 1 ? read() : withinMatchTime(MATCH_MS, read);
    this.rows = result === undefined ? Math.ceil(this.rows / 8) : Math.min(this.rows * 2, PAGE_ROWS);
    return result;
  }
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

/** The index query of the most selective selector: names before parents before labels. */
function indexQuery(arm: readonly Selector[]): Condition | undefined {
  const order = ['name', 'parent', 'label', 'kind'];
  const exactFirst = arm.toSorted(
    (a, b) =>
      Number(b.operator === '==') - Number(a.operator === '==') ||
      order.indexOf(a.field) - order.indexOf(b.field),
  );
  return exactFirst.map(toIndexQuery).find((query) => query !== undefined);
}

/** The ids of a query that meet the condition and are of the span. */
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
