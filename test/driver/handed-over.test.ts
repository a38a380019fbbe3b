import { execFileSync } from 'node:child_process';
import {
  existsSync,
  lstatSync,
  mkdirSync,
  readFileSync,
  readdirSync,
  renameSync,
  rmSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { describe, expect, vi } from 'vitest';
import { MetadataReader, MetadataStore, OverlayDriver, restoreStore, checkStore } from '../../src/index.ts';
import { backupDatabase } from '../../src/metadata/backup/backup.ts';
import { StoreLock } from '../../src/metadata/store-lock.ts';
import { makeDisk } from '../support/disk.ts';
import { test } from '../support/fixtures.ts';
import { ENDLESS_TRIGGER } from '../support/endless-trigger.ts';
import { needs } from '../support/needs.ts';
import { mustRun } from '../support/shell.ts';

const lacking = needs('root', 'sqlite3');

/** Makes something at a path that is not a regular file. */
const KINDS: Readonly<Record<string, (path: string) => void>> = {
  'a fifo': (path) => void execFileSync('mkfifo', [path]),
  'a device': (path) => void execFileSync('mknod', [path, 'c', '1', '5']),
  'a directory': (path) => mkdirSync(path),
  'a link to a file': (path) => symlinkSync(join(path, '../../victim'), path),
  'a link to nothing': (path) => symlinkSync('nowhere', path),
};

const BESIDE = ['metadata.db-wal', 'metadata.db-shm', 'metadata.db-journal'];

const OPENS: Readonly<Record<string, (root: string) => Promise<unknown>>> = {
  'OverlayDriver.open': (root) => OverlayDriver.open(root),
  'MetadataStore.open': (root) => MetadataStore.open(join(root, 'metadata.db')),
  'MetadataReader.openReader': (root) => MetadataReader.openReader(join(root, 'metadata.db')),
  backup: (root) => backupDatabase(join(root, 'metadata.db'), join(root, '../backup.db')),
};

/** Makes TMPDIR a filesystem of 2 MiB until the test ends. @returns its path */
function useSmallTmpdir(undo: (step: () => unknown) => void): string {
  const disk = makeDisk('tmpfs', 2);
  undo(() => disk.remove());
  vi.stubEnv('TMPDIR', disk.path);
  undo(() => vi.unstubAllEnvs());
  return disk.path;
}

describe.skipIf(lacking)(`a store that was handed over${lacking}`, () => {
  for (const name of [...BESIDE, 'metadata.db-reserve', 'metadata.db-restoring']) {
    for (const [kind, make] of Object.entries(KINDS)) {
      test(`nothing is opened while ${name} is ${kind}`, async ({
        example: { root, at },
        examiner,
        place,
      }) => {
        writeFileSync(join(place, 'victim'), 'precious');
        if (existsSync(at(name))) renameSync(at(name), join(place, 'before'));
        make(at(name));
        const opens = Object.entries(OPENS).slice(0, BESIDE.includes(name) ? undefined : 1);
        for (const [what, open] of opens) {
          await expect(open(root), what).rejects.toMatchObject({
            name: 'SnapshotError',
            code: 'FAILED_PRECONDITION',
          });
        }
        const { status, findings } = await examiner.check(root);
        expect(status).toBe('damaged');
        expect(findings).toContainEqual(expect.objectContaining({ code: 'wrong-type', path: at(name) }));
        expect((await examiner.check(root, { repair: true })).status).toBe('repaired');
        await (await OverlayDriver.open(root)).close();
        expect(readFileSync(join(place, 'victim'), 'utf8')).toBe('precious');
      });
    }
  }

  for (const [kind, make] of Object.entries(KINDS).filter(([name]) => name !== 'a directory')) {
    test(`nothing is opened, restored or deleted while backups/ is ${kind}`, async ({
      example: { root, at },
      examiner,
      place,
    }) => {
      writeFileSync(join(place, 'victim'), 'precious');
      make(at('backups'));
      for (const open of [OverlayDriver.open(root), restoreStore(root)]) {
        await expect(open).rejects.toMatchObject({ code: 'FAILED_PRECONDITION' });
      }
      expect((await examiner.check(root, { repair: true })).status).toBe('repaired');
      await (await OverlayDriver.open(root)).close();
      expect(readFileSync(join(place, 'victim'), 'utf8')).toBe('precious');
    });
  }

  test('a restoration moves away what is in the place of the log, and reads no backup that is a fifo', async ({
    example: { root, at },
    place,
  }) => {
    mkdirSync(at('backups'));
    await backupDatabase(at('metadata.db'), at('backups', 'metadata-20300101T000000000Z.db'));
    for (const suffix of ['-wal', '-shm']) rmSync(at(`metadata.db${suffix}`));
    execFileSync('mkfifo', [
      at('metadata.db-wal'),
      at('metadata.db-journal'),
      at('backups', 'metadata-20310101T000000000Z.db'),
    ]);
    const { from, setAside, snapshots } = await restoreStore(root);
    expect({ from, snapshots }).toEqual({
      from: at('backups', 'metadata-20300101T000000000Z.db'),
      snapshots: 6,
    });
    expect(readdirSync(setAside ?? '').toSorted()).toEqual([
      'metadata.db',
      'metadata.db-journal',
      'metadata.db-wal',
    ]);
    execFileSync('mkfifo', [at('metadata.db-wal'), join(place, 'fifo')]);
    expect((await restoreStore(root, { salvage: true })).snapshots).toBe(6);
    await expect(restoreStore(root, { from: join(place, 'fifo') })).rejects.toMatchObject({
      code: 'FAILED_PRECONDITION',
    });
  });

  test('spare space is never written to a file that has another name', async ({
    example: { root, at },
    place,
  }) => {
    writeFileSync(join(place, 'victim'), 'precious');
    execFileSync('ln', ['-f', join(place, 'victim'), at('metadata.db-reserve')]);
    await (await OverlayDriver.open(root)).close();
    expect(readFileSync(join(place, 'victim'), 'utf8')).toBe('precious');
    expect(lstatSync(at('metadata.db-reserve')).size).toBeGreaterThan(100_000);
  });

  test('a link in the place of snapshots/ is told what to do instead, and a repair leaves it', async ({
    example: { root, at },
    examiner,
    place,
  }) => {
    renameSync(at('snapshots'), join(place, 'larger'));
    symlinkSync(join(place, 'larger'), at('snapshots'));
    await expect(OverlayDriver.open(root)).rejects.toMatchObject({
      code: 'FAILED_PRECONDITION',
      hint: expect.stringContaining('mount --bind') as string,
    });
    const { findings, rebuild, repairs } = await examiner.check(root, { repair: true });
    expect(findings.map(({ code }) => code)).toEqual(['snapshots-link']);
    expect({ rebuild, repairs }).toEqual({ rebuild: [], repairs: [] });
    expect(lstatSync(at('snapshots')).isSymbolicLink()).toBe(true);
  });

  test('a database with a hole of 10 GB is checked, salvaged and restored with little space for copies', async ({
    example: { root, at },
    undo,
  }) => {
    useSmallTmpdir(undo);
    truncateSync(at('metadata.db'), 10 * 2 ** 30);
    const { status, findings } = await checkStore(root);
    expect({ status, codes: findings.map(({ code }) => code) }).toEqual({
      status: 'clean',
      codes: ['database-oversized'],
    });
    expect((await restoreStore(root, { salvage: true })).snapshots).toBe(6);
  });

  test('a database that does not fit into the space for copies is told, and that is not filled', async ({
    example: { root, at },
    undo,
  }) => {
    const temporary = useSmallTmpdir(undo);
    writeFileSync(at('metadata.db'), Buffer.alloc(4 << 20, 'x'), { flag: 'a' });
    for (const run of [() => checkStore(root), () => restoreStore(root, { salvage: true })]) {
      await expect(run()).rejects.toMatchObject({
        code: 'RESOURCE_EXHAUSTED',
        hint: expect.stringContaining('TMPDIR') as string,
      });
    }
    expect(readdirSync(temporary)).toEqual(['root']);
  });

  test('nothing is repaired while a restoration has the store alone', async ({ example: { root, at } }) => {
    execFileSync('mkfifo', [at('metadata.db-wal')]);
    const alone = StoreLock.takeAlone(root);
    const repair = checkStore(root, { repair: true });
    expect((await checkStore(root)).status).toBe('damaged');
    alone.release();
    expect((await repair).status).toBe('repaired');
  });

  test('nothing is restored while lost+found or snapshots is a link, and nothing has changed', async ({
    example: { root, at },
    place,
  }) => {
    mkdirSync(join(place, 'elsewhere'));
    symlinkSync(join(place, 'elsewhere'), at('lost+found'));
    await expect(restoreStore(root, { salvage: true })).rejects.toMatchObject({
      code: 'FAILED_PRECONDITION',
    });
    rmSync(at('lost+found'));
    renameSync(at('snapshots'), join(place, 'larger'));
    symlinkSync(join(place, 'larger'), at('snapshots'));
    await expect(restoreStore(root, { salvage: true })).rejects.toMatchObject({
      code: 'FAILED_PRECONDITION',
    });
    expect(readdirSync(join(place, 'elsewhere'))).toEqual([]);
    expect(readdirSync(root).filter((name) => name.includes('restor'))).toEqual([]);
  });

  test('nothing opens a database with a trigger that is not ours, until a repair has dropped it', async ({
    example: { root, at },
    examiner,
    place,
  }) => {
    mustRun(at('metadata.db'), ENDLESS_TRIGGER);
    for (const [what, open] of Object.entries(OPENS)) {
      await expect(open(root), what).rejects.toMatchObject({
        code: 'FAILED_PRECONDITION',
        message: expect.stringContaining('"mine"') as string,
      });
    }
    expect((await examiner.check(root)).status).toBe('damaged');
    const { repairs } = await examiner.check(root, { repair: true });
    expect(readFileSync(repairs[0]?.detail ?? '', 'utf8')).toContain('with recursive n (i)');
    await using driver = await OverlayDriver.open(root, { backups: false });
    await driver.remove('work');
    await driver.backup(join(place, 'backup.db'));
  });

  test('a view or a table that somebody added does no harm, and comes into no copy', async ({
    example: { root, at },
    place,
  }) => {
    mustRun(at('metadata.db'), 'create table mine (x); create view yours as select 1;');
    await using driver = await OverlayDriver.open(root, { backups: false });
    await driver.backup(join(place, 'backup.db'));
    expect(
      mustRun(join(place, 'backup.db'), `select name from sqlite_schema where name in ('mine', 'yours');`),
    ).toBe('');
  });

  test('a restoration takes the rows of a backup, and nothing else that is in it', async ({
    example: { root, at },
    examiner,
    place,
  }) => {
    const backup = join(place, 'backup.db');
    await backupDatabase(at('metadata.db'), backup);
    mustRun(
      backup,
      `insert into removal values (90, 'all', 'deleting');
       ${ENDLESS_TRIGGER.replace('before insert', 'after delete')}
       create table mine (x); create index extra on label (upper(value)); create view yours as select 1;
       update high_water set id = 9007199254740991;`,
    );
    const { snapshots, journal } = await restoreStore(root, { from: backup });
    expect({ snapshots, journal: journal.map(({ id }) => id) }).toEqual({ snapshots: 6, journal: [90] });
    expect((await examiner.check(root)).findings).toEqual([]);
    await using driver = await OverlayDriver.open(root, { backups: false });
    await driver.prepare('new');
    expect((await driver.stat('new')).id).toBeLessThan(2_000_000);
  });

  test('nothing reads a view that is in the place of a table', async ({ example: { root, at } }) => {
    mustRun(
      at('metadata.db'),
      `drop table label;
       create view label (snapshot_id, key, value) as
       with recursive n (i) as (select 1 union all select i + 1 from n) select i, i, i from n;`,
    );
    for (const [what, open] of Object.entries(OPENS)) {
      await expect(open(root), what).rejects.toMatchObject({ code: 'DATA_LOSS' });
    }
    expect((await restoreStore(root, { salvage: true })).snapshots).toBe(6);
  });

  test('names of directories with numbers that no store comes to do not use up the ids', async ({
    example: { root, at },
    place,
  }) => {
    const backup = join(place, 'backup.db');
    await backupDatabase(at('metadata.db'), backup);
    mkdirSync(at('snapshots', '9007199254740991'));
    mkdirSync(at('lost+found', 'snapshot-9007199254740990-1'), { recursive: true });
    await restoreStore(root, { from: backup });
    await using driver = await OverlayDriver.open(root, { backups: false });
    await driver.prepare('new');
    expect((await driver.stat('new')).id).toBeLessThan(100);
  });
});
