import { chmodSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import BetterSqlite3 from 'better-sqlite3';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { MetadataReader, MetadataStore } from '../../src/metadata/index.ts';

let directory: string;
let file: string;
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'overlite-metadata-'));
  file = join(directory, 'metadata.db');
});
afterEach(() => rmSync(directory, { recursive: true }));

function code(body: () => unknown): unknown {
  try {
    body();
  } catch (error) {
    return error instanceof Error && 'code' in error ? error.code : error;
  }
  return 'nothing was thrown';
}

describe('a store of metadata alone', () => {
  test('prepares, commits, views, removes and deletes', async () => {
    const store = await MetadataStore.open(file);
    store.prepare('work', null, { labels: { a: '1', empty: '' } });
    const committed = store.commit('base', 'work', { usage: { inodes: 3, size: 4096 }, labels: { b: '2' } });
    expect(committed).toMatchObject({
      id: 1,
      name: 'base',
      kind: 'committed',
      parent: null,
      labels: { b: '2' },
      inUse: null,
    });
    expect(store.view('look', 'base')).toEqual(store.stat('look'));
    expect(store.find('base').usage).toEqual({ inodes: 3, size: 4096 });
    expect(code(() => store.delete('base'))).toBe('FAILED_PRECONDITION');
    expect(store.remove('look')).toEqual({ id: 2, part: 'all' });
    expect(store.delete('base')).toEqual({ id: 1, part: 'all' });
    expect(store.removals()).toEqual([
      { id: 1, part: 'all' },
      { id: 2, part: 'all' },
    ]);
    store.forget(store.removals());
    expect(store.removals()).toEqual([]);
    store.close();
    store.close();
    expect(code(() => store.stat('base'))).toBe('FAILED_PRECONDITION');
  });

  test('reserves an id for a copy, which becomes a committed snapshot or is given up', async () => {
    const store = await MetadataStore.open(file);
    store.prepare('in work');
    store.commit('base', 'in work');
    store.prepare('work', 'base');
    const first = store.reserve();
    const second = store.reserve();
    expect([first, second]).toEqual([3, 4]);
    expect(store.reservations()).toEqual([3, 4]);
    expect(store.removals()).toEqual([{ id: 1, part: 'work' }]);
    const copy = store.checkpoint('copy', 'work', first, { usage: { inodes: 2, size: 512 }, inUse: false });
    expect(copy).toMatchObject({ id: 3, kind: 'committed', parent: 'base', inUse: false });
    expect(store.find('work').kind).toBe('active');
    expect(store.reservations()).toEqual([4]);
    expect(code(() => store.checkpoint('again', 'work', first))).toBe('FAILED_PRECONDITION');
    expect(code(() => store.checkpoint('copy', 'work', second))).toBe('ALREADY_EXISTS');
    expect(code(() => store.checkpoint('other', 'missing', second))).toBe('NOT_FOUND');
    expect(code(() => store.checkpoint('other', 'base', second))).toBe('FAILED_PRECONDITION');
    expect(store.abandon(second)).toBe(true);
    expect(store.abandon(second)).toBe(false);
    expect(store.abandon(first)).toBe(false);
    expect(store.removals()).toContainEqual({ id: 4, part: 'all' });
    expect(store.prepare('next').id).toBe(5);
    expect(store.highWater()).toBe(5);
    store.close();
  });

  test('a transaction is all or nothing, and one within it fails alone', async () => {
    const store = await MetadataStore.open(file);
    expect(() =>
      store.transaction(() => {
        store.prepare('a');
        throw new Error('changed my mind');
      }),
    ).toThrow('changed my mind');
    expect(store.exists('a')).toBe(false);
    store.transaction((tx) => {
      tx.prepare('b');
      expect(code(() => tx.transaction(() => [tx.prepare('c'), tx.prepare('b')]))).toBe('ALREADY_EXISTS');
      tx.prepare('d');
    });
    expect([...store.snapshots()].map(({ name }) => name)).toEqual(['b', 'd']);
    expect(() => store.transaction(async () => store.prepare('e'))).toThrow(TypeError);
    expect(store.exists('e')).toBe(false);
    store.close();
  });

  test('what one store wrote another one reads', async () => {
    const one = await MetadataStore.open(file);
    const other = await MetadataReader.openReader(file);
    one.prepare('a', null, { labels: { x: 'y' } });
    expect(other.stat('a').labels).toEqual({ x: 'y' });
    one.close();
    other.close();
  });

  test('a reader cannot write, in no way', async () => {
    (await MetadataStore.open(file)).close();
    class Prying extends MetadataReader {
      static async look(): Promise<unknown> {
        const reader = await MetadataReader.openReader(file);
        const { db } = reader as unknown as { db: BetterSqlite3.Database };
        const refusal = code(() => db.prepare(`delete from label`).run());
        reader.close();
        return refusal;
      }
    }
    expect(await Prying.look()).toBe('SQLITE_READONLY');
  });

  test('a reader neither makes a database nor migrates one', async () => {
    await expect(MetadataReader.openReader(file)).rejects.toMatchObject({ code: 'FAILED_PRECONDITION' });
  });

  test('a label of any text is kept as it is', async () => {
    const store = await MetadataStore.open(file);
    const labels = { __proto__x: '1', 'a.b/c d': '\n"\u{1F600}\\', ['__proto__']: 'own' };
    store.prepare('a', null, { labels });
    expect(new Map(Object.entries(store.stat('a').labels))).toEqual(new Map(Object.entries(labels)));
    store.close();
  });
});

describe('the connection', () => {
  test('synchronous stays FULL after a write, and the pragmas are what they have to be', async () => {
    const store = await MetadataStore.open(file);
    store.prepare('a');
    const { db } = store as unknown as { db: BetterSqlite3.Database };
    const pragma = (name: string): unknown => db.pragma(name, { simple: true });
    expect(pragma('synchronous')).toBe(2);
    expect(pragma('journal_mode')).toBe('wal');
    expect(pragma('foreign_keys')).toBe(1);
    expect(pragma('trusted_schema')).toBe(0);
    expect(pragma('cell_size_check')).toBe(1);
    expect(pragma('application_id')).toBe(0x6f766c74);
    store.close();
  });
});

function makeForeign(sql: string): void {
  const db = new BetterSqlite3(file);
  db.exec(sql);
  db.close();
}

describe('a database that cannot be used is refused and left as it is', () => {
  test.each([
    ['another application', 'pragma application_id = 42; create table t (x)', 'FAILED_PRECONDITION'],
    ['tables of nobody known', 'create table t (x)', 'FAILED_PRECONDITION'],
    [
      'a newer version',
      'pragma application_id = 1870031988; pragma user_version = 4242',
      'FAILED_PRECONDITION',
    ],
  ])('%s', async (_, sql, expected) => {
    makeForeign(sql);
    await expect(MetadataStore.open(file)).rejects.toMatchObject({ code: expected });
    const db = new BetterSqlite3(file);
    expect(db.pragma('journal_mode', { simple: true })).toBe('delete');
    db.close();
  });

  test('a file that is no database', async () => {
    writeFileSync(
      file,
      'not a database at all, but long enough to have a header of a hundred bytes and more. '.repeat(9),
    );
    await expect(MetadataStore.open(file)).rejects.toMatchObject({ code: 'DATA_LOSS' });
  });

  test('no directory for it', async () => {
    await expect(MetadataStore.open(join(directory, 'missing', 'metadata.db'))).rejects.toMatchObject({
      name: 'SnapshotError',
    });
  });

  test('others could read it: it is narrowed to its owner', async () => {
    (await MetadataStore.open(file)).close();
    chmodSync(file, 0o644);
    (await MetadataStore.open(file)).close();
    const { statSync } = await import('node:fs');
    expect(statSync(file).mode & 0o777).toBe(0o600);
  });
});

test('a database of the first version is brought up to date, with all that is in it', async () => {
  const first = new BetterSqlite3(file);
  first.exec(readFileSync(new URL('../../migrations/0001_snapshots.sql', import.meta.url), 'utf8'));
  first.pragma('application_id = 1870031988');
  first.pragma('user_version = 1');
  first.exec(`
    insert into snapshot (name, kind, created_us, updated_us) values ('base', 'active', 1, 1);
    update snapshot set kind = 'committed', inodes = 1, size = 0;
    insert into snapshot (name, kind, parent_id, created_us, updated_us) values ('k', 'active', 1, 2, 2);`);
  first.close();
  const reading = await MetadataReader.openReader(file).catch((error: unknown) => error);
  expect(reading).toMatchObject({ code: 'FAILED_PRECONDITION' });
  const store = await MetadataStore.open(file);
  expect(store.stat('base')).toMatchObject({ kind: 'committed', volatile: false, seal: null });
  expect(store.find('k')).toMatchObject({ kind: 'active', volatileBoot: null });
  store.prepare('v', 'base', { volatileBoot: 'this one' });
  store.setVolatileBoot('v', 'the next one');
  expect(store.find('v').volatileBoot).toBe('the next one');
  expect(code(() => store.setVolatileBoot('k', 'this one'))).toBe('FAILED_PRECONDITION');
  expect(code(() => store.setVolatileBoot('missing', 'this one'))).toBe('NOT_FOUND');
  expect(store.commit('n', 'v')).toMatchObject({ volatile: false });
  store.close();
});
