import { chmodSync, readFileSync, readdirSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import BetterSqlite3, { type Database } from 'better-sqlite3';
import { describe, expect } from 'vitest';
import { MetadataStore } from '../../src/metadata/index.ts';
import { makeFirstVersion } from '../support/first-version.ts';
import { test } from '../support/fixtures.ts';
import { needs } from '../support/needs.ts';
import { mustRun } from '../support/shell.ts';

const lacking = needs('root', 'sqlite3');

describe('opening a database', () => {
  test('a store keeps synchronous at FULL after a write, and sets the other pragmas', ({ store }) => {
    store.prepare('a');
    const { db } = store as unknown as { db: Database };
    const pragma = (name: string): unknown => db.pragma(name, { simple: true });
    expect(pragma('synchronous')).toBe(2);
    expect(pragma('journal_mode')).toBe('wal');
    expect(pragma('foreign_keys')).toBe(1);
    expect(pragma('trusted_schema')).toBe(0);
    expect(pragma('cell_size_check')).toBe(1);
    expect(pragma('application_id')).toBe(0x6f766c74);
  });

  test.for([
    ['of another application', 'pragma application_id = 42; create table t (x)'],
    ['with tables that overlite does not know', 'create table t (x)'],
    ['of a newer version', 'pragma application_id = 1870031988; pragma user_version = 4242'],
  ] as const)('opening refuses a database %s and leaves it as it is', async ([, sql], { place }) => {
    const file = join(place, 'foreign.db');
    const foreign = new BetterSqlite3(file);
    foreign.exec(sql);
    foreign.close();
    const before = readFileSync(file);
    await expect(MetadataStore.open(file)).rejects.toMatchObject({ code: 'FAILED_PRECONDITION' });
    expect(readFileSync(file).equals(before)).toBe(true);
    expect(readdirSync(place)).toEqual(['foreign.db']);
    const db = new BetterSqlite3(file);
    expect(db.pragma('journal_mode', { simple: true })).toBe('delete');
    db.close();
  });

  test('opening refuses a file that is not a database', async ({ place }) => {
    const file = join(place, 'text.db');
    writeFileSync(
      file,
      'not a database at all, but long enough to have a header of a hundred bytes and more. '.repeat(9),
    );
    await expect(MetadataStore.open(file)).rejects.toMatchObject({ code: 'DATA_LOSS' });
  });

  test('opening fails if the directory is missing', async ({ place }) => {
    await expect(MetadataStore.open(join(place, 'missing', 'metadata.db'))).rejects.toMatchObject({
      name: 'SnapshotError',
      code: 'FAILED_PRECONDITION',
    });
  });

  test('opening narrows the mode of a database to its owner', async ({ databaseFile }) => {
    (await MetadataStore.open(databaseFile)).close();
    chmodSync(databaseFile, 0o644);
    (await MetadataStore.open(databaseFile)).close();
    expect(statSync(databaseFile).mode & 0o777).toBe(0o600);
  });

  test.skipIf(lacking)(
    `opening a database of an older version backs it up once, before the migration${lacking}`,
    async ({ example }) => {
      const file = example.at('metadata.db');
      makeFirstVersion(file);
      const open = async (): Promise<string[]> => {
        const store = await MetadataStore.open(file);
        const names = [...store.snapshots()].map(({ name }) => name);
        store.close();
        return names.toSorted();
      };
      expect(await open()).toEqual(['app', 'base', 'empty', 'reader', 'scratch', 'work']);
      const [made = ''] = readdirSync(example.at('backups'));
      expect(made).toMatch(/^metadata-v1-.*\.db$/);
      expect(mustRun(example.at('backups', made), 'pragma user_version;\n')).toBe('1\n');
      expect(await open()).toEqual(['app', 'base', 'empty', 'reader', 'scratch', 'work']);
      expect(readdirSync(example.at('backups'))).toEqual([made]);
    },
  );
});
