import { existsSync } from 'node:fs';
import type { Database } from 'better-sqlite3';
import { describe, expect } from 'vitest';
import { MetadataReader } from '../../src/metadata/index.ts';
import { test } from '../support/fixtures.ts';

describe('MetadataReader', () => {
  test('a reader sees what another connection has written', async ({ store, databaseFile }) => {
    const reader = await MetadataReader.openReader(databaseFile);
    store.prepare('a', null, { labels: { x: 'y' } });
    expect(reader.stat('a').labels).toEqual({ x: 'y' });
    reader.close();
  });

  test('a reader cannot write, not even with SQL of its own', async ({ store, databaseFile }) => {
    store.prepare('a', null, { labels: { x: 'y' } });
    const reader = await MetadataReader.openReader(databaseFile);
    const { db } = reader as unknown as { db: Database };
    expect(() => db.prepare('delete from label').run()).toThrow(
      expect.objectContaining({ code: 'SQLITE_READONLY' }),
    );
    reader.close();
    expect(store.stat('a').labels).toEqual({ x: 'y' });
  });

  test('openReader() does not make a database', async ({ databaseFile }) => {
    await expect(MetadataReader.openReader(databaseFile)).rejects.toMatchObject({
      code: 'FAILED_PRECONDITION',
    });
    expect(existsSync(databaseFile)).toBe(false);
  });
});
