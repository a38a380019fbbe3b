import { execFileSync, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import {
  cpSync,
  mkdirSync,
  readFileSync,
  readdirSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { describe, expect, test } from 'vitest';
import { type CheckProgress, OverlayDriver, checkStore } from '../../src/index.ts';
import { breakRules, leaveOpen, useExample } from '../support/damage.ts';
import { makeDisk } from '../support/disk.ts';
import { isRoot } from '../support/needs.ts';
import { hasShell } from '../support/shell.ts';

const needs = [isRoot ? '' : 'root', hasShell ? '' : 'sqlite3'].filter((need) => need !== '').join(' and ');

const example = useExample();

const change = (id: number, file = 'added'): void =>
  writeFileSync(example.at('snapshots', id, 'fs', file), 'x');

describe.skipIf(needs !== '')(`a check${needs && ` (needs ${needs})`}`, () => {
  test('finds nothing false beside services that write', { timeout: 120_000 }, async () => {
    const worker = join(import.meta.dirname, '../support/mixed-work.mjs');
    const workers = ['a', 'b'].map((name) =>
      spawn(process.execPath, [worker, example.root, name, '240'], { stdio: 'ignore' }),
    );
    const ended = Promise.all(workers.map((child) => once(child, 'exit')));
    // What nobody has open is read from a copy, which is as old as the beginning of the check.
    while (readdirSync(example.at('snapshots')).length < 8) await sleep(10);
    let checks = 0;
    do {
      const { status, findings } = await checkStore(example.root);
      expect({ status, findings }).toEqual({ status: 'clean', findings: [] });
      checks += 1;
    } while (workers.some(({ exitCode }) => exitCode === null));
    expect(await ended).toEqual([
      [0, null],
      [0, null],
    ]);
    expect(checks).toBeGreaterThan(1);
  });

  test('repairs beside a service that writes, and takes nothing from it', async () => {
    await using driver = await OverlayDriver.open(example.root);
    rmSync(example.at('snapshots', example.ids.work, 'work'), { recursive: true });
    const stop = new AbortController();
    const writing = (async () => {
      for (let number = 0; !stop.signal.aborted; number += 1) {
        await driver.prepare(`k${number}`, 'app');
        if (number % 2 === 0) await driver.remove(`k${number}`);
        else await driver.commit(`c${number}`, `k${number}`);
      }
    })();
    const report = await driver.check({ repair: true });
    stop.abort();
    await writing;
    expect(report).toMatchObject({ status: 'repaired', findings: [] });
    expect(report.repairs).toMatchObject([{ code: 'work-missing', outcome: 'done' }]);
    expect((await driver.check()).status).toBe('clean');
  });

  test('names all that stands on what is damaged', async () => {
    change(example.ids.base);
    const { rebuild } = await checkStore(example.root);
    expect(rebuild.map(({ name, because }) => [name, because])).toEqual([
      ['base', 'base'],
      ['app', 'base'],
      ['work', 'base'],
      ['reader', 'base'],
    ]);
  });

  test('can be limited to steps, and to snapshots and what they stand on', async () => {
    change(example.ids.app);
    const at = async (...only: string[]): Promise<string[]> =>
      (await checkStore(example.root, { only })).findings.map(({ code }) => code);
    expect(await at('layers')).toEqual(['seal-broken']);
    expect(await at('graph', 'directories')).toEqual([]);
    expect(await at('work')).toEqual(['seal-broken']);
    expect(await at('base')).toEqual([]);
    expect(await at('layers', 'name:base')).toEqual([]);
    expect(await at('name:app')).toEqual(['seal-broken']);
    await expect(at('nobody')).rejects.toMatchObject({ code: 'NOT_FOUND' });
    const { steps } = await checkStore(example.root, { only: ['graph'] });
    expect(steps.filter(({ state }) => state === 'done').map(({ step }) => step)).toEqual(['graph']);
  });

  test('is quick without the layers, and reads contents where they are sealed', async () => {
    {
      await using driver = await OverlayDriver.open(example.root, { seal: 'content' });
      await driver.prepare('k');
      writeFileSync(`${(await driver.stat('k')).directory}/fs/file`, 'before');
      await driver.commit('sealed', 'k');
      const file = `${(await driver.stat('sealed')).directory}/fs/file`;
      execFileSync(
        'bash',
        ['-euc', 'cp -p "$1" ref; printf after1 > "$1"; touch -r ref "$1"; rm ref', '-', file],
        {
          cwd: example.parent,
        },
      );
    }
    const codes = async (options: object): Promise<string[]> =>
      (await checkStore(example.root, options)).findings.map(({ code }) => code);
    expect(await codes({})).toEqual([]);
    expect(await codes({ contents: true })).toEqual(['seal-broken']);
    change(example.ids.base);
    expect(await codes({ quick: true })).toEqual([]);
  });

  test('ends when its time is over, with what it found', async () => {
    const report = await checkStore(example.root, { maxDuration: 0 });
    expect(report.status).toBe('incomplete');
    expect(report.steps.map(({ state }) => state)).toEqual(['partial', ...Array<string>(5).fill('skipped')]);
    expect(report.steps[5]?.reason).toContain('0 ms');
    expect((await checkStore(example.root, { maxDuration: 1e9 })).status).toBe('clean');
  });

  test('ends with its signal, and with what its progress function throws', async () => {
    const reason = new Error('enough');
    await expect(checkStore(example.root, { signal: AbortSignal.abort(reason) })).rejects.toBe(reason);
    const stopping = new AbortController();
    const onProgress = (): void => stopping.abort(reason);
    await expect(checkStore(example.root, { signal: stopping.signal, onProgress })).rejects.toBe(reason);
    const failing = (): void => {
      throw reason;
    };
    await expect(checkStore(example.root, { onProgress: failing })).rejects.toBe(reason);
  });

  test('tells of every step how far it is', async () => {
    const progress: CheckProgress[] = [];
    await checkStore(example.root, { onProgress: (now) => progress.push(now) });
    const steps = [...new Set(progress.map(({ step }) => step))];
    expect(steps).toEqual(['database', 'graph', 'directories', 'layers', 'leftovers', 'mounts']);
  });

  test('works on a read-only filesystem, on a copy without its scratch file, and through a link to the root', async () => {
    const disk = makeDisk('ext4', 64);
    try {
      const root = join(disk.path, 'store');
      leaveOpen(root, `for (let n = 0; n < 20; n += 1) await driver.prepare('k' + n);`);
      expect(readdirSync(root)).toContain('metadata.db-wal');
      execFileSync('mount', ['-o', 'remount,ro', disk.path]);
      const readOnly = await checkStore(root, { repair: false });
      expect(readOnly.status).toBe('clean');
      expect(readOnly.steps.every(({ state }) => state === 'done')).toBe(true);
      const copy = join(example.parent, 'copy');
      cpSync(root, copy, { recursive: true, preserveTimestamps: true });
      rmSync(join(copy, 'metadata.db-shm'));
      execFileSync('chmod', ['700', copy]);
      expect((await checkStore(copy)).findings.filter(({ severity }) => severity === 'error')).toEqual([]);
      symlinkSync(copy, join(example.parent, 'link'));
      expect((await checkStore(join(example.parent, 'link'))).root).toBe(copy);
    } finally {
      disk.remove();
    }
  });

  test('that finds no room for its copy of the database says so, and not that it is damaged', async () => {
    const disk = makeDisk('tmpfs', 1);
    try {
      writeFileSync(join(disk.path, 'filler'), Buffer.alloc(1000 * 1024));
      const main = join(import.meta.dirname, '../../dist/cli/main.js');
      const { status, stderr } = spawnSync(process.execPath, [main, 'check', '--root', example.root], {
        encoding: 'utf8',
        env: { ...process.env, TMPDIR: disk.path },
      });
      expect({ status, stderr }).toEqual({
        status: 8,
        stderr: expect.stringContaining('RESOURCE_EXHAUSTED') as string,
      });
    } finally {
      disk.remove();
    }
  });

  test('does not follow links out of the store', async () => {
    const outside = join(example.parent, 'outside');
    mkdirSync(join(outside, 'fs'), { recursive: true });
    writeFileSync(join(outside, 'fs', 'file'), 'mine');
    rmSync(example.at('snapshots', example.ids.scratch), { recursive: true });
    symlinkSync(outside, example.at('snapshots', example.ids.scratch));
    const report = await checkStore(example.root, { repair: true });
    expect(report.status).toBe('repaired');
    expect(readFileSync(join(outside, 'fs', 'file'), 'utf8')).toBe('mine');
    expect(readdirSync(outside)).toEqual(['fs']);
  });

  test('neither looks nor moves anything through a link in the place of its own directories', async () => {
    const outside = join(example.parent, 'outside');
    mkdirSync(outside);
    renameSync(example.at('snapshots'), join(example.parent, 'elsewhere'));
    symlinkSync(join(example.parent, 'elsewhere'), example.at('snapshots'));
    const codes = (await checkStore(example.root)).findings.map(({ code }) => code);
    expect(codes.toSorted()).toEqual([...Array<string>(5).fill('directory-missing'), 'not-a-directory']);
    rmSync(example.at('snapshots'));
    renameSync(join(example.parent, 'elsewhere'), example.at('snapshots'));
    symlinkSync(outside, example.at('lost+found'));
    mkdirSync(example.at('snapshots', 'stray'));
    const { repairs } = await checkStore(example.root, { repair: true });
    expect(repairs).toMatchObject([{ code: 'directory-unknown', outcome: 'refused' }]);
    expect(readdirSync(outside)).toEqual([]);
  });

  test('leaves nothing behind in the directory for temporary files, however it ends', async () => {
    const before = readdirSync(tmpdir()).filter((name) => name.startsWith('overlite-check-'));
    const stop = new AbortController();
    const onProgress = (): void => stop.abort();
    await checkStore(example.root, { signal: stop.signal, onProgress }).catch(() => {});
    await checkStore(example.root);
    expect(readdirSync(tmpdir()).filter((name) => name.startsWith('overlite-check-'))).toEqual(before);
  });

  test('keeps a note beside what it sets aside', async () => {
    mkdirSync(example.at('snapshots', 'stray', 'deep'), { recursive: true });
    const { repairs } = await checkStore(example.root, { repair: true });
    const place = repairs[0]?.detail ?? '';
    expect(readdirSync(place)).toEqual(['deep']);
    expect(JSON.parse(readFileSync(`${place}.note`, 'utf8'))).toMatchObject({
      what: example.at('snapshots', 'stray'),
      why: expect.stringContaining('not called like the directory') as string,
    });
  });

  test('repairs nothing by what a damaged database says', async () => {
    breakRules(example.root, `update snapshot set in_use = 7 where id = ${example.ids.base};`);
    mkdirSync(example.at('snapshots', 'stray'));
    const { repairs, status } = await checkStore(example.root, { repair: true });
    expect(status).toBe('damaged');
    expect(repairs).toMatchObject([{ code: 'directory-unknown', outcome: 'refused' }]);
    expect(readdirSync(example.at('snapshots'))).toContain('stray');
  });

  test('is refused for what is no store, and with options that cannot be', async () => {
    await expect(checkStore(join(example.parent, 'nowhere'))).rejects.toMatchObject({
      code: 'FAILED_PRECONDITION',
    });
    mkdirSync(join(example.parent, 'empty'));
    await expect(checkStore(join(example.parent, 'empty'))).rejects.toMatchObject({
      code: 'FAILED_PRECONDITION',
    });
    await expect(checkStore('')).rejects.toMatchObject({ code: 'INVALID_ARGUMENT' });
    await expect(checkStore(7 as unknown as string)).rejects.toThrow(TypeError);
    const refused = (options: object): Promise<unknown> => checkStore(example.root, options);
    await expect(refused({ bogus: 1 })).rejects.toThrow(TypeError);
    await expect(refused({ quick: 1 })).rejects.toThrow(TypeError);
    await expect(refused({ only: 'layers' })).rejects.toThrow(TypeError);
    await expect(refused({ signal: {} })).rejects.toThrow(TypeError);
    await expect(refused({ onProgress: 1 })).rejects.toThrow(TypeError);
    await expect(refused({ maxDuration: 'x' })).rejects.toThrow(TypeError);
    await expect(refused({ maxDuration: -1 })).rejects.toMatchObject({ code: 'INVALID_ARGUMENT' });
    await expect(refused({ olderThan: Number.NaN })).rejects.toMatchObject({ code: 'INVALID_ARGUMENT' });
    await expect(refused({ dryRun: true })).rejects.toMatchObject({ code: 'INVALID_ARGUMENT' });
    await expect(refused({ quick: true, contents: true })).rejects.toMatchObject({
      code: 'INVALID_ARGUMENT',
    });
    const driver = await OverlayDriver.open(example.root);
    await driver.close();
    await expect(driver.check()).rejects.toMatchObject({ code: 'FAILED_PRECONDITION' });
  });
});
