import { readdirSync } from 'node:fs';
import { describe, expect } from 'vitest';
import { MetadataStore } from '../../src/metadata/index.ts';
import { test } from '../support/fixtures.ts';
import { needs } from '../support/needs.ts';
import { mustRun } from '../support/shell.ts';

const lacking = needs('root', 'sqlite3');

describe.skipIf(lacking)(`opening a database${lacking}`, () => {
  test('opening a database of an older version backs it up once, before the migration', async ({
    example,
  }) => {
    const file = example.at('metadata.db');
    mustRun(
      file,
      `drop trigger snapshot_volatile; alter table snapshot drop column volatile_boot; pragma user_version = 1;`,
    );
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
  });
});
