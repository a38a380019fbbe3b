import { execFile } from 'node:child_process';
import { readFileSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import BetterSqlite3 from 'better-sqlite3';
import { expect } from 'vitest';
import { MetadataReader, MetadataStore } from '../../src/metadata/index.ts';
import { makeFirstVersion } from '../support/first-version.ts';
import { test } from '../support/fixtures.ts';
import { needs } from '../support/needs.ts';
import { mustRun } from '../support/shell.ts';

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

const lacking = needs('root', 'sqlite3');

test.skipIf(lacking)(
  `processes that open an old database at once migrate it once, after one backup of it as it was${lacking}`,
  async ({ example }) => {
    makeFirstVersion(example.at('metadata.db'));
    const script = join(import.meta.dirname, '../support/open-root.mjs');
    const outputs = await Promise.all(
      Array.from({ length: 10 }, () => promisify(execFile)(process.execPath, [script, example.root])),
    );
    for (const { stdout } of outputs) expect(JSON.parse(stdout)).toEqual({ opened: true });
    const backups = readdirSync(example.at('backups'));
    expect(backups).toEqual([expect.stringMatching(/^metadata-v1-/)]);
    const [backup = ''] = backups;
    expect(
      mustRun(example.at('backups', backup), 'pragma user_version; select count(*) from snapshot;\n'),
    ).toBe('1\n6\n');
  },
);
