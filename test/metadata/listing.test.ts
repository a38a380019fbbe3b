import { join } from 'node:path';
import type { Database } from 'better-sqlite3';
import { describe, expect } from 'vitest';
import { matchesPattern, toIndexQuery } from '../../src/metadata/filter-sql.ts';
import { parseFilter } from '../../src/metadata/filter.ts';
import { MetadataStore } from '../../src/metadata/index.ts';
import { test as base } from '../support/fixtures.ts';

/** What all tests here list: chains of nine committed snapshots with an active one on top, in several pages. */
const test = base.extend<{ $file: { listed: MetadataStore } }>({
  listed: [
    async ({ sharedPlace }, use) => {
      const store = await MetadataStore.open(join(sharedPlace, 'metadata.db'));
      store.transaction(() => {
        for (let i = 0; i < 2000; i += 1) {
          const parent = i % 10 === 0 ? null : `s${i - 1}`;
          store.prepare(`k${i}`, parent, { labels: { active: 'yes' } });
          if (i % 10 === 9) continue;
          store.commit(`s${i}`, `k${i}`, { labels: { n: String(i % 100), even: i % 2 === 0 ? 'yes' : '' } });
        }
      });
      await use(store);
      store.close();
    },
    { scope: 'file' },
  ],
});

function namesIn(store: MetadataStore, ...filters: string[]): string[] {
  return [...store.snapshots(...filters)].map(({ name }) => name);
}

const all = Array.from({ length: 2000 }, (_, i) => (i % 10 === 9 ? `k${i}` : `s${i}`));
const isOpen = (name: string): boolean => name.startsWith('k');

describe('filters', () => {
  test.for<[string[], (name: string, index: number) => boolean]>([
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
  ])(
    'a listing by %j has what the filters take, in the order of creation',
    ([filters, takes], { listed }) => {
      expect(namesIn(listed, ...filters)).toEqual(all.filter(takes));
    },
  );
});

test('a listing visits what was there when it began, whatever is written meanwhile', ({ listed: store }) => {
  const seen: string[] = [];
  const written: string[] = [];
  for (const { name } of store.snapshots()) {
    seen.push(name);
    // Several times a page: each write waits for the disk.
    if (seen.length % 20 === 0) written.push(store.prepare(`while-${name}`).name);
  }
  expect(seen).toEqual(all);
  expect(namesIn(store)).toEqual([...all, ...written]);
  store.transaction(() => {
    for (const name of written) store.remove(name);
  });
});

test('a listing goes on where it was when a page could not be read', ({ listed: store }) => {
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

test('a listing refuses more than 500 conditions', ({ listed: store }) => {
  const many = Array.from({ length: 501 }, (_, i) => `name==a${i}`);
  expect(() => [...store.snapshots(...many)]).toThrow(expect.objectContaining({ code: 'INVALID_ARGUMENT' }));
  expect([...store.snapshots(...many.slice(1))]).toEqual([]);
});

test('filters by name, parent and label read an index and never a whole table', ({ listed: store }) => {
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
