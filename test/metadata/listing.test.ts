import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Database } from 'better-sqlite3';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { matchesPattern, toIndexQuery } from '../../src/metadata/filter-sql.ts';
import { parseFilter } from '../../src/metadata/filter.ts';
import { MetadataStore } from '../../src/metadata/index.ts';

let directory: string;
let store: MetadataStore;
beforeAll(async () => {
  directory = mkdtempSync(join(tmpdir(), 'overlite-listing-'));
  store = await MetadataStore.open(join(directory, 'metadata.db'));
  store.transaction(() => {
    for (let i = 0; i < 2000; i += 1) {
      const parent = i % 10 === 0 ? null : `s${i - 1}`;
      store.prepare(`k${i}`, parent, { labels: { active: 'yes' } });
      if (i % 10 !== 9)
        store.commit(`s${i}`, `k${i}`, { labels: { n: String(i % 100), even: i % 2 === 0 ? 'yes' : '' } });
    }
  });
});
afterAll(() => {
  store.close();
  rmSync(directory, { recursive: true });
});

function names(...filters: string[]): string[] {
  return [...store.snapshots(...filters)].map(({ name }) => name);
}

const all = Array.from({ length: 2000 }, (_, i) => (i % 10 === 9 ? `k${i}` : `s${i}`));
const isOpen = (name: string): boolean => name.startsWith('k');

describe('a listing has what the filters take, in the order of creation, over many pages', () => {
  test.each<[string[], (name: string, index: number) => boolean]>([
    [[], () => true],
    [[''], () => true],
    [['name==s5'], (name) => name === 's5'],
    [['name==s5', 'name==missing', 'name==s4'], (name) => name === 's5' || name === 's4'],
    [['name!=s5'], (name) => name !== 's5'],
    [['name'], () => true],
    [['name~=^s1'], (name) => name.startsWith('s1')],
    [['name~=^s1?'], (name) => name.startsWith('s')],
    [['name~=s1|k9$'], (name) => /s1|k9$/.test(name)],
    [['name~=5$'], (name) => name.endsWith('5')],
    [['kind==active'], isOpen],
    [['kind!=active'], (name) => !isOpen(name)],
    [['kind~=^comm'], (name) => !isOpen(name)],
    [['kind==view'], () => false],
    [['parent==s3'], (name) => name === 's4'],
    [['parent==missing'], () => false],
    [['parent!=missing'], () => true],
    [['parent!=s3'], (name) => name !== 's4'],
    [['parent==""'], (_, i) => i % 10 === 0],
    [['parent!=""'], (_, i) => i % 10 !== 0],
    [['parent~=^s19'], (_, i) => i % 10 !== 0 && `s${i - 1}`.startsWith('s19')],
    [['labels.n==42'], (name, i) => !isOpen(name) && i % 100 === 42],
    [['labels.n!=42'], (name, i) => isOpen(name) || i % 100 !== 42],
    [['labels.even'], (name, i) => !isOpen(name) && i % 2 === 0],
    [['labels.even!=""'], (name, i) => !isOpen(name) && i % 2 === 0],
    [['labels.even==""'], () => false],
    [['labels.n~=^4'], (name, i) => !isOpen(name) && String(i % 100).startsWith('4')],
    [['labels.n~=".*"'], () => true],
    [['labels.active,labels.active==yes'], isOpen],
    [
      ['labels.n==42,parent!=""', 'kind==active,name~=99$'],
      (name, i) => (!isOpen(name) && i % 100 === 42) || /^k.*99$/.test(name),
    ],
  ])('%j', (filters, takes) => {
    expect(names(...filters)).toEqual(all.filter(takes));
  });
});

test('a listing visits what was there when it began, whatever is written meanwhile', () => {
  const seen: string[] = [];
  for (const { name } of store.snapshots()) {
    seen.push(name);
    store.prepare(`while-${name}`);
  }
  expect(seen).toEqual(all);
  store.transaction(() => {
    for (const name of seen) store.remove(`while-${name}`);
  });
});

test('a listing goes on where it was when a page could not be read', () => {
  const { db } = store as unknown as { db: Database };
  // Stands for a database that was locked for a moment, which here would take another process that recovers it.
  let calls = 0;
  const failOnce = (_: unknown, value: unknown): number => {
    calls += 1;
    if (calls === 700) throw new Error('not now');
    return Number(String(value).endsWith('5'));
  };
  try {
    db.function('overlite_matches', { deterministic: true }, failOnce);
    const pages = store.pages(['name~=5$']);
    const seen: string[] = [];
    let failures = 0;
    for (let done = false; !done;) {
      try {
        const page = pages.next();
        done = page.done === true;
        for (const { name } of page.value ?? []) seen.push(name);
      } catch {
        failures += 1;
      }
    }
    expect(failures).toBe(1);
    expect(seen).toEqual(all.filter((name) => name.endsWith('5')));
  } finally {
    db.function('overlite_matches', { deterministic: true }, matchesPattern);
  }
});

test('more conditions than SQLite could take are refused', () => {
  const many = Array.from({ length: 501 }, (_, i) => `name==a${i}`);
  expect(() => [...store.snapshots(...many)]).toThrow(expect.objectContaining({ code: 'INVALID_ARGUMENT' }));
  expect([...store.snapshots(...many.slice(1))]).toEqual([]);
});

test('filters by name, parent and label read an index and never a whole table', () => {
  const { db } = store as unknown as { db: Database };
  for (const filter of ['name==a', 'name~=^abc', 'parent==a', 'labels.a==b', 'labels.a', 'labels.a~=^b']) {
    const [selector] = parseFilter(filter);
    const query = selector && toIndexQuery(selector);
    expect(query, filter).toBeDefined();
    const plan = db
      .prepare<string[], { detail: string }>(`explain query plan ${query?.sql}`)
      .all(...(query?.values ?? []));
    for (const { detail } of plan) expect(detail, filter).not.toMatch(/^SCAN/);
  }
});
