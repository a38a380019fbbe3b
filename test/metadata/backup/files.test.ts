import { existsSync, readFileSync, readdirSync, statSync, utimesSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import BetterSqlite3 from 'better-sqlite3';
import { outputFileSync } from 'fs-extra/esm';
import { describe, expect } from 'vitest';
import {
  backupsOf,
  copyInto,
  listBackups,
  nameBackup,
  pruneBackups,
} from '../../../src/metadata/backup/files.ts';
import { openDatabase } from '../../../src/metadata/open.ts';
import { test } from '../../support/fixtures.ts';

/** Names of files in `backups/`, some of which only look like backups of `metadata.db`. */
const NAMES = [
  'metadata-20300101T000000000Z.db',
  'metadata-20310101T000000000Z.db',
  'metadata-20320101T000000000Z.db',
  'metadata-v1-20330101T000000000Z.db',
  'metadata-v12-20290101T000000000Z.db',
  'metadata-20340101T000000000Z.db-journal',
  'metadata-20350101.db',
  'metadata-mine.db',
  'metadatax-20360101T000000000Z.db',
  'other-20370101T000000000Z.db',
  'metadata-20380101T000000000Z.db.partial-7',
];

function makeBackups(place: string): string {
  for (const name of NAMES) outputFileSync(join(place, 'backups', name), name);
  return join(place, 'metadata.db');
}

describe('lists of backups', () => {
  test('listBackups() gives the backups of a kind, and nothing else', ({ place }) => {
    const database = makeBackups(place);
    const list = (kind: 'rolling' | 'migration' | 'any'): string[] =>
      listBackups(database, kind)
        .map((path) => path.slice(join(place, 'backups/').length))
        .toSorted();
    expect(list('rolling')).toEqual(NAMES.slice(0, 3));
    expect(list('migration')).toEqual([NAMES[3], NAMES[4]]);
    expect(list('any')).toEqual(NAMES.slice(0, 5));
  });

  test('listBackups() gives none if there is no directory of backups', ({ place }) => {
    expect(listBackups(join(place, 'metadata.db'), 'any')).toEqual([]);
  });

  test('listBackups() finds what nameBackup() names', ({ place }) => {
    const database = join(place, 'metadata.db');
    outputFileSync(join(place, 'backups', 'metadata-20000101T000000000Z.db'), '');
    const rolling = join(backupsOf(database), nameBackup(database));
    const migration = join(backupsOf(database), nameBackup(database, 3));
    for (const file of [rolling, migration]) writeFileSync(file, '');
    expect(listBackups(database, 'rolling').toSorted()).toEqual([
      join(place, 'backups', 'metadata-20000101T000000000Z.db'),
      rolling,
    ]);
    expect(listBackups(database, 'migration')).toEqual([migration]);
  });

  test('pruneBackups() keeps the newest backups of a kind, and leaves all other files alone', ({ place }) => {
    pruneBackups(makeBackups(place), 'rolling', 1);
    expect(readdirSync(join(place, 'backups')).toSorted()).toEqual(NAMES.slice(2).toSorted());
  });

  test('pruneBackups() deletes partial files that are older than a day', ({ place }) => {
    const database = makeBackups(place);
    const now = Date.now() / 1000;
    const partial = (name: string, age: number): void => {
      outputFileSync(join(place, 'backups', name), '');
      utimesSync(join(place, 'backups', name), now - age, now - age);
    };
    partial('metadata-1.db.partial-1', 25 * 60 * 60);
    partial('metadata-2.db.partial-2', 23 * 60 * 60);
    pruneBackups(database, 'rolling', 10);
    const left = readdirSync(join(place, 'backups')).filter((name) => name.includes('partial'));
    expect(left.toSorted()).toEqual(['metadata-2.db.partial-2', 'metadata-20380101T000000000Z.db.partial-7']);
  });
});

describe('copyInto()', () => {
  test('copyInto() writes one file with everything that is in the database and its log', async ({
    databaseFile,
    store,
    place,
  }) => {
    store.prepare('a', null, { labels: { x: 'y' } });
    expect(existsSync(`${databaseFile}-wal`)).toBe(true);
    const db = await openDatabase(databaseFile, { readonly: true, busyTimeout: 1000 });
    const file = join(place, 'copy.db');
    copyInto(db, file);
    // The connection is as read-only as before.
    expect(db.pragma('query_only', { simple: true })).toBe(1);
    db.close();
    expect(statSync(file).mode & 0o777).toBe(0o600);
    const copy = new BetterSqlite3(file, { readonly: true });
    expect(
      copy.prepare('select name, key, value from snapshot join label on snapshot_id = id').all(),
    ).toEqual([{ name: 'a', key: 'x', value: 'y' }]);
    expect(copy.pragma('journal_mode', { simple: true })).toBe('delete');
    copy.close();
    expect(readdirSync(place).filter((name) => name.startsWith('copy'))).toEqual(['copy.db']);
  });

  test('copyInto() does not replace a file, and leaves no partial one behind', async ({
    databaseFile,
    store,
    place,
  }) => {
    store.prepare('a');
    const file = join(place, 'copy.db');
    writeFileSync(file, 'mine');
    const db = await openDatabase(databaseFile, { readonly: true, busyTimeout: 1000 });
    expect(() => copyInto(db, file)).toThrow(expect.objectContaining({ code: 'ALREADY_EXISTS' }));
    db.close();
    expect(readFileSync(file, 'utf8')).toBe('mine');
    expect(readdirSync(place).filter((name) => name.includes('partial'))).toEqual([]);
  });

  test('copyInto() fails on a damaged database, and leaves no file behind', async ({ place }) => {
    const file = join(place, 'damaged.db');
    const made = await openDatabase(file, { readonly: false, busyTimeout: 1000 });
    made.exec(`with recursive n (i) as (select 1 union all select i + 1 from n where i < 1000)
               insert into snapshot (name, kind, created_us, updated_us) select hex(zeroblob(100)) || i, 'active', 0, 0 from n`);
    made.close();
    const bytes = readFileSync(file);
    const at = bytes.lastIndexOf('active');
    bytes.fill(0xee, at - (at % 4096), at - (at % 4096) + 4096);
    writeFileSync(file, bytes);
    const db = new BetterSqlite3(file);
    expect(() => copyInto(db, join(place, 'copy.db'))).toThrow(
      expect.objectContaining({ code: 'SQLITE_CORRUPT' }),
    );
    db.close();
    expect(readdirSync(place)).toEqual(['damaged.db']);
  });
});
