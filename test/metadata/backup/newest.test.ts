import { execFileSync } from 'node:child_process';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect } from 'vitest';
import { OverlayDriver, restoreStore } from '../../../src/index.ts';
import { copyInto, listBackups, pruneBackups } from '../../../src/metadata/backup/files.ts';
import { newestFirst } from '../../../src/metadata/backup/newest.ts';
import { MetadataStore } from '../../../src/metadata/index.ts';
import { openDatabase } from '../../../src/metadata/open.ts';
import { test } from '../../support/fixtures.ts';
import { needs } from '../../support/needs.ts';
import { mustRun } from '../../support/shell.ts';

const lacking = needs('root', 'sqlite3');

/** Names that say the opposite of the order in which the backups are made. */
const NAMES = [2042, 2041, 2040, 2039, 2038, 2037].map((year) => `metadata-${year}0101T000000000Z.db`);

/** Makes a backup after each of some changes. @returns their paths in the order in which they were made */
async function backUpAfterEach(
  database: string,
  changes: readonly ((store: MetadataStore) => void)[],
): Promise<string[]> {
  const store = await MetadataStore.open(database);
  const db = await openDatabase(database, { readonly: true, busyTimeout: 1000 });
  mkdirSync(join(database, '../backups'));
  const files = changes.map((change, index) => {
    change(store);
    const file = join(database, '../backups', NAMES[index] ?? '');
    copyInto(db, file);
    return file;
  });
  db.close();
  store.close();
  return files;
}

const CHANGES: readonly ((store: MetadataStore) => void)[] = [
  (store) => void store.prepare('a'),
  (store) => void store.prepare('b'),
  (store) => void store.update('b', { labels: { x: 'y' } }),
  (store) => void store.commit('base', 'a'),
  (store) => void store.remove('b'),
  (store) => void store.prepare('c'),
];

describe.skipIf(lacking)(`newestFirst()${lacking}`, () => {
  test('backups are sorted by what is in them, whatever their names say', async ({ place }) => {
    const made = await backUpAfterEach(join(place, 'metadata.db'), CHANGES);
    expect(newestFirst(made)).toEqual(made.toReversed());
    expect(newestFirst(made.toReversed())).toEqual(made.toReversed());
  });

  test('a copy that becomes a snapshot is newer than its reservation, though no id is assigned', async ({
    place,
  }) => {
    const [reserved, turned] = await backUpAfterEach(join(place, 'metadata.db'), [
      (store) => void store.prepare('a'),
      () => {},
    ]);
    mustRun(reserved ?? '', `insert into removal values (2, 'all', 'reserved');`);
    mustRun(
      turned ?? '',
      `insert into removal values (2, 'all', 'reserved');
       insert into snapshot (id, name, kind, created_us, updated_us, inodes, size)
       values (2, 'copy', 'committed', 0, 0, 1, 0);`,
    );
    expect(newestFirst([reserved ?? '', turned ?? ''])).toEqual([turned, reserved]);
  });

  test('what cannot be read comes last, and so does a mark that no store comes to', async ({ place }) => {
    const [first = '', second = ''] = await backUpAfterEach(join(place, 'metadata.db'), CHANGES.slice(0, 2));
    mustRun(second, 'update high_water set id = 9007199254740991;');
    const [text, fifo, view] = ['text', 'fifo', 'view'].map((name) => join(place, name));
    writeFileSync(text ?? '', 'text');
    execFileSync('mkfifo', [fifo ?? '']);
    execFileSync('cp', [first, view ?? '']);
    mustRun(
      view ?? '',
      `drop table high_water;
       create view high_water (id) as
       with recursive n (i) as (select 1 union all select i + 1 from n) select i from n;`,
    );
    const sorted = newestFirst([view ?? '', text ?? '', second, fifo ?? '', first]);
    expect(sorted.slice(0, 2)).toEqual([first, second]);
  });

  test('backups from the future are pruned as the old ones that they are', async ({ place }) => {
    const database = join(place, 'metadata.db');
    const made = await backUpAfterEach(database, CHANGES);
    pruneBackups(database, 'rolling', 2);
    expect(listBackups(database, 'rolling').toSorted()).toEqual(made.slice(-2).toSorted());
  });

  test('a restoration takes the backup that knows most, not the one with the latest date', async ({
    example: { root, at },
  }) => {
    mkdirSync(at('backups'));
    const copies = NAMES.map((name) => at('backups', name));
    {
      await using driver = await OverlayDriver.open(root, { backups: false });
      await driver.backup(copies[0] ?? '');
      await driver.prepare('later');
      await driver.backup(copies[1] ?? '');
    }
    expect(await restoreStore(root)).toMatchObject({ from: copies[1], snapshots: 7 });
  });
});
