import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import BetterSqlite3, { type Database } from 'better-sqlite3';
import { ensureDirSync } from 'fs-extra/esm';
import { describe, expect } from 'vitest';
import { OverlayDriver } from '../../src/index.ts';
import { matchesPattern } from '../../src/metadata/filter-sql.ts';
import { MetadataStore } from '../../src/metadata/index.ts';
import { test as base } from '../support/fixtures.ts';

/** What may be scanned, and why. */
const MAY_SCAN: readonly (readonly [RegExp, string])[] = [
  [/^\s*select tree\s+from snapshot_tree/, 'draws all snapshots'],
  [
    /^\s*select (id|count\(\*\))\s+from removal\s+where state = '(reserved|deleting)'/,
    'is about all of the journal',
  ],
];

/** The tables that grow: `high_water` and `sqlite_sequence` have one row, what recursion and json_each give is none. */
const TABLES = ['snapshot', 'label', 'removal'];

const COUNT = 3000;

/** Runs `body`. @returns every statement that was prepared meanwhile, but for those that end a transaction or read the schema */
async function statementsOf(body: () => Promise<void>): Promise<string[]> {
  const prepared = new Set<string>();
  const prepare = Reflect.get(BetterSqlite3.prototype, 'prepare');
  BetterSqlite3.prototype.prepare = function note(this: Database, sql: string) {
    prepared.add(sql);
    return Reflect.apply(prepare, this, [sql]) as never;
  };
  try {
    await body();
  } finally {
    BetterSqlite3.prototype.prepare = prepare;
  }
  return [...prepared].filter(
    (sql) => /^\s*(with|select|insert|update|delete)\b/.test(sql) && !/sqlite_schema/.test(sql),
  );
}

function fill(store: MetadataStore): void {
  store.transaction(() => {
    for (let i = 0; i < COUNT; i += 1) {
      const parent = i % 10 === 0 ? null : `s${i - 1}`;
      store.prepare(`k${i}`, parent, { labels: { ref: `r${i}`, even: String(i % 2) } });
      if (i % 10 !== 9) store.commit(`s${i}`, `k${i}`, { labels: { ref: `r${i}`, even: String(i % 2) } });
    }
    store.forget(store.removals(0, COUNT));
  });
}

/** Does everything that a driver and a store can do, once. */
async function useAll(root: string): Promise<void> {
  await using driver = await OverlayDriver.open(root, { asyncRemove: true, remapIds: true });
  const labels = { ref: 'new', even: 'no' };
  await driver.prepare('base work', null, { labels });
  await driver.commit('base', 'base work', { labels });
  await driver.prepare('work', 'base', { labels, volatile: true });
  await driver.view('view', 'base', { labels });
  writeFileSync(join((await driver.stat('work')).directory ?? '', 'fs', 'file'), 'x');
  await driver.mounts('work');
  await driver.usage('work');
  await driver.exists('work');
  await driver.parent('work');
  await driver.children('base');
  await driver.chain('work');
  await driver.owner('snapshots/1');
  await driver.update('work', { labels: { even: 'maybe' } });
  await driver.update('work', { labels: { ref: 'other' } }, ['labels.ref', 'labels.even']);
  await driver.checkpoint('so far', 'work', { labels });
  await driver.prepare('loose');
  await driver.commit('rebased', 'loose', { parent: 'base' });
  await driver.transaction((tx) => {
    tx.prepare('inner', 'base');
    tx.commit('inner done', 'inner');
  });
  const lists = [
    [],
    ['name==s5'],
    ['name~=^s5'],
    ['parent==s5'],
    ['labels.ref==r7'],
    ['labels.ref~=^r7'],
    ['labels.even', 'kind==view'],
    ['kind==active'],
    ['kind!=active'],
    ['name!=s5'],
    ['parent!=s5,labels.ref==r7'],
    ['labels.even!=1'],
  ];
  for (const filters of lists) {
    for await (const { id } of driver.snapshots(...filters)) if (id === 0) break;
    await driver.walk(() => {}, ...filters);
  }
  await driver.active(() => {});
  for (const key of ['work', 'view']) await driver.remove(key);
  for (const name of ['so far', 'rebased', 'inner done', 'base']) await driver.delete(name);
  await driver.cleanup();
}

interface Seen {
  readonly statements: readonly string[];
  /** The database, with statistics, which decide about plans. */
  readonly db: Database;
}

const test = base.extend<{ $file: { seen: Seen } }>({
  seen: [
    async ({ sharedPlace }, use) => {
      const file = join(sharedPlace, 'metadata.db');
      const store = await MetadataStore.open(file);
      fill(store);
      store.close();
      ensureDirSync(join(sharedPlace, 'snapshots', '1', 'fs'));
      const statements = await statementsOf(() => useAll(sharedPlace));
      const db = new BetterSqlite3(file);
      db.function('overlite_matches', { deterministic: true }, matchesPattern);
      db.exec('analyze');
      await use({ statements, db });
      db.close();
    },
    { scope: 'file' },
  ],
});

/** Values for the parameters of a statement: which ones does not matter to its plan. */
function valuesFor(sql: string): unknown[] {
  const bare = sql.replace(/'[^']*'/g, '');
  const named = Object.fromEntries([...bare.matchAll(/:(\w+)/g)].map(([, name = '']) => [name, null]));
  const unnamed = Array.from(bare.matchAll(/\?/g), () => null);
  return Object.keys(named).length > 0 ? [...unnamed, named] : unnamed;
}

function mayScan(sql: string): boolean {
  return MAY_SCAN.some(([pattern]) => pattern.test(sql));
}

/** What a query plan calls the tables: by their own name, or by the one that the statement gives them. */
function scannedTables(db: Database, sql: string): string[] {
  const aliases = new Map(TABLES.map((table) => [table, table]));
  for (const [, table = '', alias = ''] of sql.matchAll(/\b(\w+) as (\w+)/g)) {
    if (TABLES.includes(table)) aliases.set(alias, table);
  }
  return db
    .prepare<unknown[], { detail: string }>(`explain query plan ${sql}`)
    .all(...valuesFor(sql))
    .flatMap(({ detail }) => {
      const [, name = ''] = /^SCAN (\w+)/.exec(detail) ?? [];
      return aliases.has(name) ? [detail] : [];
    });
}

interface Step {
  readonly addr: number;
  readonly opcode: string;
  readonly p1: number;
  readonly p2: number;
}

/** What the program of a statement goes through from one end to the other, the programs of its triggers included. */
function rewoundTables(db: Database, sql: string): string[] {
  const roots = new Map(
    db
      .prepare<[], { rootpage: number; tbl_name: string }>(
        'select rootpage, tbl_name from sqlite_schema where rootpage > 0',
      )
      .all()
      .map(({ rootpage, tbl_name: table }) => [rootpage, table]),
  );
  const found: string[] = [];
  const cursors = new Map<number, string>();
  for (const { addr, opcode, p1, p2 } of db
    .prepare<unknown[], Step>(`explain ${sql}`)
    .all(...valuesFor(sql))) {
    if (addr === 0) cursors.clear();
    const table = roots.get(p2);
    if (/^Open(Read|Write)$/.test(opcode) && table !== undefined) cursors.set(p1, table);
    const scanned = cursors.get(p1);
    if (opcode === 'Rewind' && scanned !== undefined && TABLES.includes(scanned)) found.push(scanned);
  }
  return found;
}

describe('query plans', () => {
  test('the statements of a driver and of a store are seen', ({ seen: { statements } }) => {
    expect(statements.length).toBeGreaterThan(40);
  });

  test('no statement goes through a whole table that grows', ({ seen: { statements, db } }) => {
    for (const sql of statements) if (!mayScan(sql)) expect(scannedTables(db, sql), sql).toEqual([]);
  });

  test('no trigger that a statement sets off goes through a whole table that grows', ({
    seen: { statements, db },
  }) => {
    const writes = statements.filter((sql) => /^\s*(insert|update|delete)\b/.test(sql));
    expect(writes.length).toBeGreaterThan(10);
    for (const sql of writes) expect(rewoundTables(db, sql), sql).toEqual([]);
  });

  test('a statement that goes through a whole table is noticed', ({ seen: { db } }) => {
    expect(scannedTables(db, `select up.id from snapshot as up where up.seal = 'x'`)).toEqual(['SCAN up']);
    expect(rewoundTables(db, `delete from label where value = 'x'`)).toEqual(['label']);
  });
});
