import { readFileSync } from 'node:fs';
import type { Database } from 'better-sqlite3';
import { expect } from 'vitest';
import { test } from '../support/fixtures.ts';

test('the migrations make the schema in test/metadata/schema.sql', ({ store }) => {
  const { db } = store as unknown as { db: Database };
  const statements = db
    .prepare<[], string>(`select sql from sqlite_schema where sql is not null order by type, name`)
    .pluck()
    .all();
  const dump = statements.map((sql) => `${sql};\n`).join('\n');
  expect(dump).toBe(readFileSync(new URL('schema.sql', import.meta.url), 'utf8'));
});
