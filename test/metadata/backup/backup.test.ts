import { readFileSync, readdirSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect } from 'vitest';
import { OverlayDriver, type Tally } from '../../../src/index.ts';
import { makeDisk } from '../../support/disk.ts';
import { test } from '../../support/fixtures.ts';
import { needs } from '../../support/needs.ts';
import { waitFor } from '../../support/wait-for.ts';
import { mustRun, queryShell } from '../../support/shell.ts';

const lacking = needs('root', 'sqlite3');

describe.skipIf(lacking)(`backup()${lacking}`, () => {
  test('backup() writes one whole file while the store is written to', async ({ example, place }) => {
    const backup = join(place, 'backup.db');
    {
      await using driver = await OverlayDriver.open(example.root, { asyncRemove: true, backups: false });
      const stop = new AbortController();
      const writer = (async () => {
        for (let number = 0; !stop.signal.aborted; number += 1) await driver.prepare(`k${number}`, 'app');
      })();
      await driver.backup(backup);
      stop.abort();
      await writer;
    }
    expect(statSync(backup).mode & 0o777).toBe(0o600);
    expect(mustRun(backup, 'pragma integrity_check;\n')).toBe('ok\n');
    const names = queryShell<{ name: string }>(backup, 'select name from snapshot').map(({ name }) => name);
    expect(names).toEqual(expect.arrayContaining(['app', 'base', 'empty', 'reader', 'scratch', 'work']));
    expect(readdirSync(place).toSorted()).toEqual(['backup.db', 'example']);
  });

  test('backup() refuses to replace a file', async ({ driver, place }) => {
    const backup = join(place, 'backup.db');
    writeFileSync(backup, 'mine');
    await expect(driver.backup(backup)).rejects.toMatchObject({ code: 'ALREADY_EXISTS' });
    expect(readFileSync(backup, 'utf8')).toBe('mine');
  });

  test('backup() refuses a path that is empty, not a string, or in no directory', async ({
    driver,
    place,
  }) => {
    const nowhere = join(place, 'nowhere', 'file');
    await expect(driver.backup(nowhere)).rejects.toMatchObject({ code: 'FAILED_PRECONDITION' });
    await expect(driver.backup('')).rejects.toMatchObject({ code: 'INVALID_ARGUMENT' });
    await expect(driver.backup(7 as unknown as string)).rejects.toThrow(TypeError);
  });

  test('backup() with onProgress rejects if the file it writes first cannot have its name', async ({
    driver,
    place,
  }) => {
    const told: Tally[] = [];
    const onProgress = (tally: Tally): void => void told.push(tally);
    await expect(driver.backup(join(place, 'x'.repeat(250)), { onProgress })).rejects.toMatchObject({
      name: 'SnapshotError',
      code: 'INVALID_ARGUMENT',
    });
    expect(told.length).toBeGreaterThan(0);
  });

  test('backup() leaves nothing behind on a full disk', async ({ driver, undo }) => {
    const disk = makeDisk('tmpfs', 1);
    undo(() => disk.remove());
    writeFileSync(join(disk.path, 'filler'), Buffer.alloc(1000 * 1024));
    await expect(driver.backup(join(disk.path, 'b.db'))).rejects.toMatchObject({
      code: 'RESOURCE_EXHAUSTED',
    });
    expect(readdirSync(disk.path).toSorted()).toEqual(['filler', 'root']);
  });

  test('backup() reports how many bytes it has copied, out of the size of the database', async ({
    driver,
    root,
    place,
  }) => {
    await driver.prepare('a');
    const { size } = statSync(join(root, 'metadata.db'));
    const progress: Tally[] = [];
    await driver.backup(join(place, 'backup.db'), { onProgress: (now) => progress.push(now) });
    expect(progress.length).toBeGreaterThan(0);
    for (const { done, total } of progress) {
      expect(total).toBe(size);
      expect(done).toBeLessThanOrEqual(total);
    }
  });

  test('backup() ends with the reason of its signal, and leaves no part of a file behind', async ({
    driver,
    place,
  }) => {
    const reason = new Error('enough');
    const file = join(place, 'backup.db');
    const aborted = driver.backup(file, { signal: AbortSignal.abort(reason) });
    await expect(aborted).rejects.toBe(reason);
    expect(readdirSync(place)).toEqual(['store']);
    const stop = new AbortController();
    const stopped = driver.backup(file, {
      signal: stop.signal,
      onProgress: () => stop.abort(reason),
    });
    await expect(stopped).rejects.toBe(reason);
    // It may have been complete by then.
    expect(readdirSync(place).filter((name) => name.includes('partial'))).toEqual([]);
  });

  test('a backup that is cancelled while SQLite writes leaves no journal behind', async ({
    driver,
    place,
  }) => {
    const labels = Object.fromEntries(Array.from({ length: 16 }, (_, i) => [`label-${i}`, 'x'.repeat(2000)]));
    await driver.transaction((transaction) => {
      for (let i = 0; i < 1000; i++) transaction.prepare(`k${i}`, null, { labels });
    });
    const stop = new AbortController();
    const stopped = driver.backup(join(place, 'backup.db'), { signal: stop.signal });
    stopped.catch(() => {});
    await waitFor('the journal', () => readdirSync(place).some((name) => name.endsWith('-journal')));
    stop.abort();
    await expect(stopped).rejects.toThrow('aborted');
    expect(readdirSync(place)).toEqual(['store']);
  });

  test('backup() ends with what its progress function throws', async ({ driver, place }) => {
    const error = new Error('mine');
    const onProgress = (): void => {
      throw error;
    };
    await expect(driver.backup(join(place, 'backup.db'), { onProgress })).rejects.toBe(error);
    expect(readdirSync(place).filter((name) => name.includes('partial'))).toEqual([]);
    // The driver is as usable as before.
    await driver.prepare('a');
  });
});
