import {
  lstatSync,
  mkdirSync,
  readFileSync,
  readdirSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { dirname, join } from 'node:path';
import BetterSqlite3 from 'better-sqlite3';
import { describe, expect } from 'vitest';
import { MetadataStore } from '../../../src/metadata/index.ts';
import { Inspector } from '../../../src/metadata/repair/inspector.ts';
import { breakRules, leaveOpen } from '../../support/damage.ts';
import { makeFirstVersion } from '../../support/first-version.ts';
import { test as base } from '../../support/fixtures.ts';
import { needs } from '../../support/needs.ts';
import { mustRun, queryShell } from '../../support/shell.ts';

/** Opens a database for inspection; what is opened is closed after the test. */
const test = base.extend<{ inspect: (file: string) => Inspector }>({
  inspect: async ({ place }, use) => {
    const opened: Inspector[] = [];
    await use((file) => {
      const inspector = Inspector.open(file, () => {
        const scratch = join(place, `scratch-${opened.length}`);
        mkdirSync(scratch);
        return scratch;
      });
      opened.push(inspector);
      return inspector;
    });
    for (const inspector of opened) inspector.close();
  },
});

const lacking = needs('root', 'sqlite3');

const noCopy = (): never => {
  throw new Error('there must be no copy');
};

/** The files beside a database, with what tells whether one has been changed. */
function filesBeside(file: string): string[] {
  const directory = dirname(file);
  return readdirSync(directory).map((name) => {
    const { ino, size, mtimeNs } = lstatSync(join(directory, name), { bigint: true });
    return `${name} ${ino} ${size} ${mtimeNs}`;
  });
}

describe.skipIf(lacking)(`Inspector${lacking}`, () => {
  test('a database that nobody has open is read from a copy, and nothing beside it changes', ({
    example,
    inspect,
  }) => {
    const file = example.at('metadata.db');
    const before = filesBeside(file);
    const inspector = inspect(file);
    expect(inspector.shared).toBe(false);
    expect(inspector.files).toEqual({ wal: false, shm: false });
    expect([...inspector.snapshots()].map(({ name }) => name)).toEqual([
      'base',
      'app',
      'work',
      'scratch',
      'reader',
      'empty',
    ]);
    expect(inspector.integrity({ quick: false })).toEqual([]);
    expect(inspector.foreignKeys()).toEqual([]);
    expect(inspector.schema()).toEqual([]);
    expect(filesBeside(file)).toEqual(before);
  });

  test('a database that seems to be open is read in place, and a body of atOnce() sees one state', ({
    root,
  }) => {
    leaveOpen(root, `await driver.prepare('first');`);
    const file = join(root, 'metadata.db');
    const inspector = Inspector.open(file, noCopy);
    expect(inspector.shared).toBe(true);
    expect(inspector.files).toEqual({ wal: true, shm: true });
    const names = (): string[] => [...inspector.snapshots()].map(({ name }) => name);
    const writer = new BetterSqlite3(file);
    const insert = writer.prepare(
      `insert into snapshot (id, name, kind, created_us, updated_us) values (?, ?, 'view', 1, 1)`,
    );
    const seen = inspector.atOnce(() => {
      const before = names();
      insert.run(7, 'second');
      return [before, names(), inspector.highWater()];
    });
    expect(seen).toEqual([['first'], ['first'], 1]);
    expect(names()).toEqual(['first', 'second']);
    expect(inspector.snapshot(7)).toMatchObject({ name: 'second', kind: 'view', parentId: null });
    expect(inspector.highWater()).toBe(7);
    writer.prepare('delete from snapshot where id = 7').run();
    expect(inspector.snapshot(7)).toBeUndefined();
    expect(inspector.removalsOf(7)).toEqual([{ id: 7, part: 'all', state: 'deleting' }]);
    writer.prepare('delete from removal where id = 7').run();
    writer.close();
    inspector.close();
  });

  test('snapshots() gives more than a page of snapshots in the order of ids', async ({
    databaseFile,
    inspect,
  }) => {
    const store = await MetadataStore.open(databaseFile);
    store.transaction(() => {
      for (let number = 0; number < 2500; number += 1) store.prepare(`k${number}`);
    });
    store.close();
    const ids = [...inspect(databaseFile).snapshots()].map(({ id }) => id);
    expect(ids).toEqual(Array.from({ length: 2500 }, (_, index) => index + 1));
  });

  test('a database of the first version is read as it is', ({ example, inspect }) => {
    const file = example.at('metadata.db');
    makeFirstVersion(file);
    const inspector = inspect(file);
    expect(inspector).toMatchObject({ version: 1, outdated: true });
    expect(inspector.snapshot(example.ids.work)).toMatchObject({ name: 'work', volatileBoot: null });
    expect(mustRun(file, 'pragma user_version;\n')).toBe('1\n');
  });

  test('rows that break every rule are read as they are', ({ example, inspect }) => {
    const { root, ids } = example;
    breakRules(
      root,
      `update snapshot set kind = 'odd', parent_id = 4711, in_use = 7, inodes = -3, name = ''
        where id = ${ids.app};
       delete from high_water;`,
    );
    const inspector = inspect(example.at('metadata.db'));
    expect(inspector.snapshot(ids.app)).toMatchObject({
      kind: 'odd',
      parentId: 4711,
      inUse: 7,
      inodes: -3,
      name: '',
    });
    expect(inspector.highWater()).toBeUndefined();
    expect(inspector.foreignKeys()).toEqual([{ table: 'snapshot', rows: 1 }]);
  });

  test('a page that cannot be read is DATA_LOSS, and other tables can still be read', ({
    example,
    inspect,
  }) => {
    const file = example.at('metadata.db');
    const [row] = queryShell<{ rootpage: number }>(
      file,
      `select rootpage from sqlite_schema where name = 'snapshot'`,
    );
    const bytes = readFileSync(file);
    const page = ((row?.rootpage ?? 0) - 1) * 4096;
    bytes.fill(0xff, page, page + 8);
    writeFileSync(file, bytes);
    const inspector = inspect(file);
    expect(() => [...inspector.snapshots()]).toThrow(expect.objectContaining({ code: 'DATA_LOSS' }));
    expect(inspector.highWater()).toBe(Math.max(...Object.values(example.ids)));
    expect(inspector.removals()).toEqual([]);
  });

  test('a log that is damaged is reported, although SQLite leaves the damage out', ({ root, inspect }) => {
    leaveOpen(root, `for (let n = 0; n < 5; n += 1) await driver.prepare('k' + n);`);
    const file = join(root, 'metadata.db');
    rmSync(`${file}-shm`);
    const bytes = readFileSync(`${file}-wal`);
    bytes[32 + 24 + 4096 + 24 + 100] = 0xee;
    writeFileSync(`${file}-wal`, bytes);
    expect(inspect(file).walDamage).toMatch(/^frame 2 cannot be read/);
    // The store has lost its last changes for good: it must not be checked when the test ends.
    rmSync(root, { recursive: true });
  });
});

describe.skipIf(lacking)(`databases that cannot be inspected${lacking}`, () => {
  test.for<[why: string, reason: string, code: string, change: (file: string) => void]>([
    ['is missing', 'missing', 'DATA_LOSS', (file) => rmSync(file)],
    ['is empty', 'not-a-database', 'DATA_LOSS', (file) => writeFileSync(file, '')],
    ['is text', 'not-a-database', 'DATA_LOSS', (file) => writeFileSync(file, 'text '.repeat(2000))],
    [
      'is a symbolic link',
      'not-a-database',
      'DATA_LOSS',
      (file) => {
        renameSync(file, `${file}-elsewhere`);
        symlinkSync(`${file}-elsewhere`, file);
      },
    ],
    [
      'has no schema',
      'not-a-database',
      'DATA_LOSS',
      (file) => {
        rmSync(file);
        mustRun(file, 'pragma user_version = 0; vacuum;');
      },
    ],
    [
      'is cut off',
      'unreadable',
      'DATA_LOSS',
      (file) => writeFileSync(file, readFileSync(file).subarray(0, 5000)),
    ],
    [
      'belongs to another application',
      'foreign',
      'FAILED_PRECONDITION',
      (file) => void mustRun(file, 'pragma application_id = 7;'),
    ],
    [
      'is of a newer version',
      'newer',
      'FAILED_PRECONDITION',
      (file) => void mustRun(file, 'pragma user_version = 4711;'),
    ],
  ])(
    'Inspector.open() says why it cannot read a database that %s',
    ([, reason, code, change], { example, inspect }) => {
      const file = example.at('metadata.db');
      change(file);
      const before = filesBeside(file);
      expect(() => inspect(file)).toThrow(expect.objectContaining({ name: 'SnapshotError', code, reason }));
      expect(filesBeside(file)).toEqual(before);
    },
  );

  test('a copy that finds no directory says nothing about the database', ({ example }) => {
    const open = (): Inspector => Inspector.open(example.at('metadata.db'), () => '/nowhere');
    expect(open).toThrow(expect.objectContaining({ code: 'FAILED_PRECONDITION' }));
    expect(open).not.toThrow(expect.objectContaining({ reason: expect.anything() as string }));
  });
});
