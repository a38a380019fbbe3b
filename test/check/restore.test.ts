import { execFileSync } from 'node:child_process';
import {
  copyFileSync,
  existsSync,
  mkdirSync,
  readFileSync,
  readdirSync,
  renameSync,
  rmSync,
  statSync,
  truncateSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { beforeEach, describe, expect, test } from 'vitest';
import { OverlayDriver, checkStore, restoreStore } from '../../src/index.ts';
import { useExample } from '../support/damage.ts';
import { makeDisk } from '../support/disk.ts';
import { isRoot } from '../support/needs.ts';
import { hasShell, mustRun, queryShell } from '../support/shell.ts';

const needs = [isRoot ? '' : 'root', hasShell ? '' : 'sqlite3'].filter((need) => need !== '').join(' and ');

const example = useExample();
let backup: string;
beforeEach(() => {
  backup = join(example.parent, 'backup.db');
});

async function namesIn(root: string): Promise<string[]> {
  await using driver = await OverlayDriver.open(root, { asyncRemove: true, backups: false });
  const names: string[] = [];
  for await (const { name } of driver.snapshots()) names.push(name);
  return names.toSorted();
}

async function withDriver(work: (driver: OverlayDriver) => Promise<unknown>): Promise<void> {
  await using driver = await OverlayDriver.open(example.root, { asyncRemove: true, backups: false });
  await work(driver);
}

const NAMES = ['app', 'base', 'empty', 'reader', 'scratch', 'work'];

describe.skipIf(needs !== '')(`a backup${needs && ` (needs ${needs})`}`, () => {
  test('is one whole file, made while the store is written to', async () => {
    await withDriver(async (driver) => {
      const stop = new AbortController();
      const writer = (async () => {
        for (let number = 0; !stop.signal.aborted; number += 1) await driver.prepare(`k${number}`, 'app');
      })();
      await driver.backup(backup);
      stop.abort();
      await writer;
    });
    expect(statSync(backup).mode & 0o777).toBe(0o600);
    expect(mustRun(backup, 'pragma integrity_check;\n')).toBe('ok\n');
    const names = queryShell<{ name: string }>(backup, 'select name from snapshot').map(({ name }) => name);
    expect(names).toEqual(expect.arrayContaining(NAMES));
    expect(readdirSync(example.parent).toSorted()).toEqual(['backup.db', 'store']);
  });

  test('never takes the place of something, and needs a directory', async () => {
    await withDriver(async (driver) => {
      writeFileSync(backup, 'mine');
      await expect(driver.backup(backup)).rejects.toMatchObject({ code: 'ALREADY_EXISTS' });
      expect(readFileSync(backup, 'utf8')).toBe('mine');
      const nowhere = join(example.parent, 'nowhere', 'file');
      await expect(driver.backup(nowhere)).rejects.toMatchObject({ code: 'FAILED_PRECONDITION' });
      await expect(driver.backup('')).rejects.toMatchObject({ code: 'INVALID_ARGUMENT' });
      await expect(driver.backup(7 as unknown as string)).rejects.toThrow(TypeError);
    });
  });

  test('that finds no room leaves nothing behind', async () => {
    const disk = makeDisk('tmpfs', 1);
    try {
      writeFileSync(join(disk.path, 'filler'), Buffer.alloc(1000 * 1024));
      await withDriver(async (driver) => {
        await expect(driver.backup(join(disk.path, 'b.db'))).rejects.toMatchObject({
          code: 'RESOURCE_EXHAUSTED',
        });
      });
      expect(readdirSync(disk.path).toSorted()).toEqual(
        ['filler', 'root'].filter((name) => existsSync(join(disk.path, name))),
      );
    } finally {
      disk.remove();
    }
  });

  test('is made by itself every so often, and a few are kept', async () => {
    const backups = join(example.root, 'backups');
    // What crashes have left half written, one long ago and one just now.
    mkdirSync(backups, { mode: 0o700 });
    for (const name of ['old', 'new']) writeFileSync(join(backups, `metadata-${name}.db.partial-1`), '');
    utimesSync(join(backups, 'metadata-old.db.partial-1'), 1, 1);
    const driver = await OverlayDriver.open(example.root, { backups: { every: 20, keep: 2 } });
    const seen = new Set<string>();
    while (seen.size < 4) {
      for (const name of existsSync(backups) ? readdirSync(backups) : [])
        if (name.endsWith('Z.db')) seen.add(name);
      await sleep(10);
    }
    await driver.close();
    const kept = readdirSync(backups).filter((name) => name.endsWith('Z.db'));
    expect(kept.length).toBeGreaterThanOrEqual(2);
    expect(kept.length).toBeLessThanOrEqual(3);
    const partial = readdirSync(backups).filter((name) => name.includes('partial'));
    expect(partial).toEqual(['metadata-new.db.partial-1']);
    expect(mustRun(join(backups, kept[0] ?? ''), 'select count(*) from snapshot;\n')).toBe('6\n');
    expect((await checkStore(example.root)).status).toBe('clean');
  });

  test('is made before a migration', async () => {
    mustRun(
      example.at('metadata.db'),
      `drop trigger snapshot_volatile; alter table snapshot drop column volatile_boot; pragma user_version = 1;`,
    );
    expect(await namesIn(example.root)).toEqual(NAMES);
    const [made = ''] = readdirSync(example.at('backups'));
    expect(made).toMatch(/^metadata-v1-.*\.db$/);
    expect(mustRun(example.at('backups', made), 'pragma user_version;\n')).toBe('1\n');
    expect(await namesIn(example.root)).toEqual(NAMES);
    expect(readdirSync(example.at('backups'))).toEqual([made]);
  });

  test('has settings that are checked', async () => {
    const open = (backups: unknown): Promise<unknown> =>
      OverlayDriver.open(example.root, { backups: backups as false });
    await expect(open({ every: 0 })).rejects.toMatchObject({ code: 'INVALID_ARGUMENT' });
    await expect(open({ keep: 1.5 })).rejects.toMatchObject({ code: 'INVALID_ARGUMENT' });
    await expect(open({ keep: '2' })).rejects.toThrow(TypeError);
    await expect(open(7)).rejects.toThrow(TypeError);
  });
});

describe.skipIf(needs !== '')(`a restoration${needs && ` (needs ${needs})`}`, () => {
  test('from a backup tells what does not fit, deletes nothing and hands out no id again', async () => {
    await withDriver(async (driver) => {
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
    await withDriver(async (driver) => {
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

  test('takes the newest of the backups that were made by themselves', async () => {
    mkdirSync(example.at('backups'));
    for (const time of ['20300101T000000000Z', '20310101T000000000Z']) {
      copyFileSync(example.at('metadata.db'), example.at('backups', `metadata-${time}.db`));
    }
    rmSync(example.at('metadata.db'));
    const report = await restoreStore(example.root);
    expect(report.from).toBe(example.at('backups', 'metadata-20310101T000000000Z.db'));
    expect(report.setAside).toBeNull();
    expect(report.check.status).toBe('clean');
    expect(await namesIn(example.root)).toEqual(NAMES);
  });

  test('salvages what can be read', async () => {
    await withDriver(async (driver) => {
      for (let number = 0; number < 300; number += 1) {
        await driver.prepare(`k${String(number).padStart(3, '0')}${'x'.repeat(200)}`, 'app', {
          labels: { number: String(number) },
        });
      }
    });
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
    await withDriver(async (driver) => {
      const some = left.find((name) => name.startsWith('k')) ?? '';
      expect(await driver.stat(some)).toMatchObject({
        parent: 'app',
        labels: { number: expect.any(String) as string },
      });
    });
    expect((await checkStore(example.root, { repair: true })).status).toBe('repaired');
  });

  test('salvages nothing from nothing, and lists every directory', async () => {
    rmSync(example.at('metadata.db'));
    const { snapshots, check } = await restoreStore(example.root, { salvage: true });
    expect(snapshots).toBe(0);
    const found = check.findings.map(({ id }) => String(id)).toSorted();
    expect(found).toEqual(readdirSync(example.at('snapshots')).toSorted());
    expect(await namesIn(example.root)).toEqual([]);
  });

  test('that was interrupted keeps the store closed until it is finished', async () => {
    await withDriver((driver) => driver.backup(backup));
    copyFileSync(backup, example.at('metadata.db-restoring'));
    await expect(OverlayDriver.open(example.root)).rejects.toMatchObject({ code: 'FAILED_PRECONDITION' });
    // As far as the old database having gone already.
    renameSync(example.at('metadata.db'), join(example.parent, 'old.db'));
    await expect(OverlayDriver.open(example.root)).rejects.toMatchObject({ code: 'FAILED_PRECONDITION' });
    expect(await restoreStore(example.root, { from: backup })).toMatchObject({ finished: true });
    expect(await namesIn(example.root)).toEqual(NAMES);
  });

  test('is refused while someone has the store open, and of what is no backup', async () => {
    await withDriver(async (driver) => {
      await driver.backup(backup);
      await expect(restoreStore(example.root, { from: backup })).rejects.toMatchObject({
        code: 'FAILED_PRECONDITION',
      });
    });
    const before = execFileSync('sha256sum', [example.at('metadata.db')]).toString();
    const refused = (options: object): Promise<unknown> => restoreStore(example.root, options);
    await expect(refused({})).rejects.toMatchObject({ code: 'FAILED_PRECONDITION' });
    await expect(refused({ from: join(example.parent, 'nowhere') })).rejects.toMatchObject({
      code: 'FAILED_PRECONDITION',
    });
    writeFileSync(join(example.parent, 'text'), 'x'.repeat(5000));
    await expect(refused({ from: join(example.parent, 'text') })).rejects.toMatchObject({
      code: 'DATA_LOSS',
    });
    mustRun(join(example.parent, 'other.db'), 'create table t (x);');
    await expect(refused({ from: join(example.parent, 'other.db') })).rejects.toMatchObject({
      code: 'FAILED_PRECONDITION',
    });
    await expect(refused({ from: backup, salvage: true })).rejects.toMatchObject({
      code: 'INVALID_ARGUMENT',
    });
    await expect(refused({ from: 7 })).rejects.toThrow(TypeError);
    await expect(refused({ bogus: true })).rejects.toThrow(TypeError);
    await expect(restoreStore('')).rejects.toMatchObject({ code: 'INVALID_ARGUMENT' });
    await expect(restoreStore(join(example.parent, 'nowhere'))).rejects.toMatchObject({
      code: 'FAILED_PRECONDITION',
    });
    expect(execFileSync('sha256sum', [example.at('metadata.db')]).toString()).toBe(before);
    expect(readdirSync(example.root).filter((name) => name.includes('restor'))).toEqual([]);
  });
});
