import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import BetterSqlite3 from 'better-sqlite3';
import { expect, test } from 'vitest';
import { MetadataStore } from '../../src/metadata/index.ts';

test('the migrated schema is the one that is checked in', async () => {
  const directory = mkdtempSync(join(tmpdir(), 'overlite-schema-'));
  try {
    const file = join(directory, 'metadata.db');
    (await MetadataStore.open(file)).close();
    const db = new BetterSqlite3(file, { readonly: true });
    const statements = db
      .prepare<[], string>(`select sql from sqlite_schema where sql is not null order by type, name`)
      .pluck()
      .all();
    db.close();
    const dump = statements.map((sql) => `${sql};\n`).join('\n');
    expect(dump).toBe(readFileSync(new URL('schema.sql', import.meta.url), 'utf8'));
  } finally {
    rmSync(directory, { recursive: true });
  }
});
