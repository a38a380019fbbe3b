import { readFileSync } from 'node:fs';
import BetterSqlite3 from 'better-sqlite3';
import { expect } from 'vitest';
import { MetadataReader, MetadataStore } from '../../src/metadata/index.ts';
import { test } from '../support/fixtures.ts';

test('a database of the first version is migrated with everything that is in it', async ({
  databaseFile,
}) => {
  const first = new BetterSqlite3(databaseFile);
  first.exec(readFileSync(new URL('../../migrations/0001_snapshots.sql', import.meta.url), 'utf8'));
  first.pragma('application_id = 1870031988');
  first.pragma('user_version = 1');
  first.exec(`
    insert into snapshot (name, kind, created_us, updated_us) values ('base', 'active', 1, 1);
    update snapshot set kind = 'committed', inodes = 1, size = 0;
    insert into snapshot (name, kind, parent_id, created_us, updated_us) values ('k', 'active', 1, 2, 2);`);
  first.close();
  await expect(MetadataReader.openReader(databaseFile)).rejects.toMatchObject({
    code: 'FAILED_PRECONDITION',
  });
  const store = await MetadataStore.open(databaseFile);
  expect(store.stat('base')).toMatchObject({ kind: 'committed', volatile: false, seal: null });
  expect(store.find('k')).toMatchObject({ kind: 'active', volatileBoot: null });
  store.prepare('v', 'base', { volatileBoot: 'this one' });
  store.setVolatileBoot('v', 'the next one');
  expect(store.find('v').volatileBoot).toBe('the next one');
  expect(() => store.setVolatileBoot('k', 'this one')).toThrow(
    expect.objectContaining({ code: 'FAILED_PRECONDITION' }),
  );
  expect(() => store.setVolatileBoot('missing', 'this one')).toThrow(
    expect.objectContaining({ code: 'NOT_FOUND' }),
  );
  expect(store.commit('n', 'v')).toMatchObject({ volatile: false });
  store.close();
});
