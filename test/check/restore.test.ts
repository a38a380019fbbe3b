import { execFileSync, spawnSync } from 'node:child_process';
import {
  copyFileSync,
  readFileSync,
  readdirSync,
  renameSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { copySync } from 'fs-extra/esm';
import { describe, expect } from 'vitest';
import { MetadataReader, OverlayDriver, checkStore, restoreStore } from '../../src/index.ts';
import { test } from '../support/fixtures.ts';
import { needs } from '../support/needs.ts';
import { mustRun } from '../support/shell.ts';

const lacking = needs('root', 'sqlite3');

/** Opens a store for some work, and closes it. */
async function withDriver<T>(root: string, work: (driver: OverlayDriver) => Promise<T>): Promise<T> {
  await using driver = await OverlayDriver.open(root, { asyncRemove: true, backups: false });
  return await work(driver);
}

function readFileIfNote(path: string): string {
  return path.endsWith('.note') ? readFileSync(path, 'utf8') : '';
}

/** The keys and names in a store. */
function namesIn(root: string): Promise<string[]> {
  return withDriver(root, async (driver) => {
    const names: string[] = [];
    for await (const { name } of driver.snapshots()) names.push(name);
    return names.toSorted();
  });
}

const NAMES = ['app', 'base', 'empty', 'reader', 'scratch', 'work'];

describe.skipIf(lacking)(`restoreStore()${lacking}`, () => {
  test('restore from a backup reports what does not fit, deletes nothing and hands out no id again', async ({
    example,
    place,
  }) => {
    const backup = join(place, 'backup.db');
    await withDriver(example.root, async (driver) => {
      await driver.prepare('goes');
      await driver.remove('goes');
      await driver.backup(backup);
      await driver.prepare('later', 'app');
      writeFileSync(`${(await driver.stat('later')).directory}/fs/file`, 'later');
      await driver.remove('scratch');
      await driver.cleanup();
    });
    const before = readdirSync(example.at('snapshots')).toSorted();
    truncateSync(example.at('metadata.db'), 100);
    const report = await restoreStore(example.root, { from: backup });
    expect(report).toMatchObject({ from: backup, snapshots: NAMES.length, lost: [], finished: false });
    expect(report.journal).toMatchObject([{ part: 'all', state: 'deleting' }]);
    const codes = report.check.findings.map(({ code, snapshot }) => [code, snapshot]);
    expect(codes).toEqual([
      ['directory-missing', 'scratch'],
      ['directory-unknown', null],
    ]);
    expect(readdirSync(example.at('snapshots')).toSorted()).toEqual(before);
    expect(readdirSync(report.setAside ?? '')).toContain('metadata.db');
    expect(statSync(join(report.setAside ?? '', 'metadata.db')).size).toBe(100);
    const highest = Math.max(...before.map(Number));
    await withDriver(example.root, async (driver) => {
      await driver.prepare('new');
      expect((await driver.stat('new')).id).toBeGreaterThan(highest);
    });
    const repaired = await checkStore(example.root, { repair: true });
    expect(repaired).toMatchObject({ status: 'repaired', findings: [] });
    const aside = readdirSync(example.at('lost+found')).find((name) =>
      name.startsWith(`snapshot-${highest}-`),
    );
    expect(readFileSync(example.at('lost+found', aside ?? '', 'fs', 'file'), 'utf8')).toBe('later');
  });

  test('restore takes the newest automatic backup', async ({ example }) => {
    for (const time of ['20300101T000000000Z', '20310101T000000000Z']) {
      copySync(example.at('metadata.db'), example.at('backups', `metadata-${time}.db`));
    }
    rmSync(example.at('metadata.db'));
    const report = await restoreStore(example.root);
    expect(report.from).toBe(example.at('backups', 'metadata-20310101T000000000Z.db'));
    expect(report.setAside).toBeNull();
    expect(report.check.status).toBe('clean');
    expect(await namesIn(example.root)).toEqual(NAMES);
  });

  test('salvage keeps the rows that can still be read', async ({ example }) => {
    await withDriver(example.root, (driver) =>
      driver.transaction((tx) => {
        for (let number = 0; number < 300; number += 1) {
          tx.prepare(`k${String(number).padStart(3, '0')}${'x'.repeat(200)}`, 'app', {
            labels: { number: String(number) },
          });
        }
      }),
    );
    const all = await namesIn(example.root);
    // One page of the table, in its middle: the rows on it are lost, the others are not.
    const file = example.at('metadata.db');
    const bytes = readFileSync(file);
    const at = bytes.indexOf(`k150${'x'.repeat(200)}`);
    bytes.fill(0xee, at - (at % 4096), at - (at % 4096) + 4096);
    writeFileSync(file, bytes);
    expect((await checkStore(example.root)).status).toBe('damaged');
    const report = await restoreStore(example.root, { salvage: true });
    expect(report.from).toBeNull();
    const left = await namesIn(example.root);
    expect(left.length).toBe(report.snapshots);
    expect(left.length).toBeGreaterThan(all.length / 2);
    expect(left.every((name) => all.includes(name))).toBe(true);
    const unknown = report.check.findings.filter(
      ({ code }) => code === 'directory-unknown' || code === 'skeleton',
    );
    expect(unknown.length).toBe(all.length - left.length);
    await withDriver(example.root, async (driver) => {
      const some = left.find((name) => name.startsWith('k')) ?? '';
      expect(await driver.stat(some)).toMatchObject({
        parent: 'app',
        labels: { number: expect.any(String) as string },
      });
    });
    expect((await checkStore(example.root, { repair: true })).status).toBe('repaired');
  });

  test('salvage of a missing database makes an empty store, and the check lists every directory', async ({
    example,
  }) => {
    rmSync(example.at('metadata.db'));
    const { snapshots, check } = await restoreStore(example.root, { salvage: true });
    expect(snapshots).toBe(0);
    const found = check.findings.map(({ id }) => String(id)).toSorted();
    expect(found).toEqual(readdirSync(example.at('snapshots')).toSorted());
    expect(await namesIn(example.root)).toEqual([]);
  });

  test('an interrupted restoration keeps the store closed until it is finished', async ({
    example,
    place,
  }) => {
    const backup = join(place, 'backup.db');
    await withDriver(example.root, (driver) => driver.backup(backup));
    copyFileSync(backup, example.at('metadata.db-restoring'));
    await expect(OverlayDriver.open(example.root)).rejects.toMatchObject({ code: 'FAILED_PRECONDITION' });
    // As far as the old database having gone already.
    renameSync(example.at('metadata.db'), join(place, 'old.db'));
    await expect(OverlayDriver.open(example.root)).rejects.toMatchObject({ code: 'FAILED_PRECONDITION' });
    expect(await restoreStore(example.root, { from: backup })).toMatchObject({ finished: true });
    expect(await namesIn(example.root)).toEqual(NAMES);
  });

  test.for([
    ['is text', (path: string) => writeFileSync(path, 'x'.repeat(9000))],
    ['is a fifo', (path: string) => void execFileSync('mkfifo', [path])],
    ['is a database of something else', (path: string) => void mustRun(path, 'create table t (x);')],
    [
      'is cut off',
      (path: string, backup: string) => {
        copyFileSync(backup, path);
        truncateSync(path, 20_000);
      },
    ],
    [
      'has a trigger of somebody else',
      (path: string, backup: string) => {
        copyFileSync(backup, path);
        mustRun(path, 'create trigger mine after insert on snapshot begin select 1; end;');
      },
    ],
    [
      'wants directories deleted',
      (path: string, backup: string) => {
        copyFileSync(backup, path);
        mustRun(path, `insert into removal values (90, 'all', 'deleting');`);
      },
    ],
    [
      'leaves no ids',
      (path: string, backup: string) => {
        copyFileSync(backup, path);
        mustRun(path, 'update high_water set id = 9007199254740991;');
      },
    ],
    [
      'has a log beside it',
      (path: string, backup: string) => {
        copyFileSync(backup, path);
        writeFileSync(`${path}-wal`, 'mine');
      },
    ],
  ] as const)(
    'restore sets aside what is called like an unfinished restoration and %s',
    async ([, make], { example, place }) => {
      const backup = join(place, 'backup.db');
      await withDriver(example.root, async (driver) => {
        await driver.backup(backup);
        await driver.prepare('later');
      });
      make(example.at('metadata.db-restoring'), backup);
      const report = await restoreStore(example.root, { salvage: true });
      expect(report).toMatchObject({ finished: false, snapshots: NAMES.length + 1 });
      const aside = readdirSync(example.at('lost+found')).map(
        (name) => [name, readFileIfNote(example.at('lost+found', name))] as const,
      );
      expect(aside.filter(([, text]) => text.includes('metadata.db-restoring'))).not.toEqual([]);
      expect(readdirSync(example.root).filter((name) => name.includes('restor'))).toEqual([]);
    },
  );

  test('restore removes what a killed restoration was working with, and nothing else', async ({
    example,
    place,
  }) => {
    const backup = join(place, 'backup.db');
    await withDriver(example.root, (driver) => driver.backup(backup));
    for (const name of ['metadata.db-restore-17', 'metadata.db-restore-17-wal', 'metadata.db-restore-mine']) {
      writeFileSync(example.at(name), '');
    }
    await restoreStore(example.root, { from: backup });
    expect(readdirSync(example.root).filter((name) => name.includes('restor'))).toEqual([
      'metadata.db-restore-mine',
    ]);
  });

  test('restore in another process namespace sees that a store is open, though no lock of SQLite shows it', async ({
    example,
    place,
  }) => {
    const backup = join(place, 'backup.db');
    const cli = join(import.meta.dirname, '../../dist/cli/main.js');
    const restoreElsewhere = (): string => {
      const { stderr, status } = spawnSync(
        'unshare',
        ['--pid', '--fork', '--mount-proc', process.execPath, cli, 'restore', '--root', example.root, backup],
        { encoding: 'utf8' },
      );
      return `${status} ${stderr}`;
    };
    await withDriver(example.root, async (driver) => {
      await driver.backup(backup);
      expect(restoreElsewhere()).toMatch(
        /^1 overlite: FAILED_PRECONDITION: a process has the store in .* open/,
      );
    });
    const reader = await MetadataReader.openReader(example.at('metadata.db'));
    expect(restoreElsewhere()).toMatch(/^1 .*FAILED_PRECONDITION/);
    reader.close();
    expect(restoreElsewhere()).toBe('0 ');
  });

  test('restore refuses a store that somebody has open', async ({ example, place }) => {
    const backup = join(place, 'backup.db');
    await withDriver(example.root, async (driver) => {
      await driver.backup(backup);
      await expect(restoreStore(example.root, { from: backup })).rejects.toMatchObject({
        code: 'FAILED_PRECONDITION',
      });
      expect((await driver.stat('base')).name).toBe('base');
    });
    expect(readdirSync(example.root).filter((name) => name.includes('restor'))).toEqual([]);
  });

  test('restore refuses a missing, foreign or damaged backup, and leaves the database as it is', async ({
    example,
    place,
  }) => {
    const before = readFileSync(example.at('metadata.db'));
    const restore = (from?: string): Promise<unknown> =>
      restoreStore(example.root, from === undefined ? {} : { from: join(place, from) });
    await expect(restore()).rejects.toMatchObject({ code: 'FAILED_PRECONDITION' });
    await expect(restore('nowhere')).rejects.toMatchObject({ code: 'FAILED_PRECONDITION' });
    writeFileSync(join(place, 'text'), 'x'.repeat(5000));
    await expect(restore('text')).rejects.toMatchObject({ code: 'DATA_LOSS' });
    mustRun(join(place, 'other.db'), 'create table t (x);');
    await expect(restore('other.db')).rejects.toMatchObject({ code: 'FAILED_PRECONDITION' });
    expect(readFileSync(example.at('metadata.db')).equals(before)).toBe(true);
    expect(readdirSync(example.root).filter((name) => name.includes('restor'))).toEqual([]);
  });

  test('restoreStore() refuses a root without a store', async ({ place }) => {
    await expect(restoreStore('')).rejects.toMatchObject({ code: 'INVALID_ARGUMENT' });
    await expect(restoreStore(join(place, 'nowhere'))).rejects.toMatchObject({ code: 'FAILED_PRECONDITION' });
  });

  test('restoreStore() rejects options that are unknown, of a wrong type or contradict each other', async ({
    example,
    place,
  }) => {
    const before = readFileSync(example.at('metadata.db'));
    const restore = (options: object): Promise<unknown> => restoreStore(example.root, options);
    await expect(restore({ from: join(place, 'backup.db'), salvage: true })).rejects.toMatchObject({
      code: 'INVALID_ARGUMENT',
    });
    await expect(restore({ from: 7 })).rejects.toThrow(TypeError);
    await expect(restore({ bogus: true })).rejects.toThrow(TypeError);
    expect(readFileSync(example.at('metadata.db')).equals(before)).toBe(true);
  });
});
