import { execFileSync, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
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
import { join } from 'node:path';
import { inspect } from 'node:util';
import { copySync, outputFileSync } from 'fs-extra/esm';
import { describe, expect, vi } from 'vitest';
import { type CheckOptions, type CheckProgress, OverlayDriver, checkStore } from '../../src/index.ts';
import { main } from '../support/cli.ts';
import { type Example, breakRules, leaveOpen } from '../support/damage.ts';
import { makeDisk } from '../support/disk.ts';
import { test } from '../support/fixtures.ts';
import { commitLayer, layerOf } from '../support/layers.ts';
import { needs } from '../support/needs.ts';
import { sh } from '../support/tree.ts';
import { waitFor } from '../support/wait-for.ts';

const lacking = needs('root', 'sqlite3');

/** Adds a file to a layer. */
function change({ at }: Example, id: number): void {
  writeFileSync(at('snapshots', id, 'fs', 'added'), 'x');
}

async function codesIn(root: string, options: CheckOptions = {}): Promise<string[]> {
  return (await checkStore(root, options)).findings.map(({ code }) => code);
}

describe.skipIf(lacking)(`checkStore()${lacking}`, () => {
  test('check finds nothing false beside services that write', async ({ example, undo }) => {
    const worker = join(import.meta.dirname, '../support/mixed-work.mjs');
    const workers = ['a', 'b'].map((name) =>
      spawn(process.execPath, [worker, example.root, name, 'on'], { stdio: ['pipe', 'ignore', 'inherit'] }),
    );
    for (const child of workers) undo(() => child.kill());
    const ended = Promise.all(workers.map((child) => once(child, 'exit')));
    // What nobody has open is read from a copy, which is as old as the beginning of the check.
    await waitFor('both services', () => readdirSync(example.at('snapshots')).length >= 8);
    for (let checks = 0; checks < 10; checks += 1) {
      const { status, findings } = await checkStore(example.root);
      expect({ status, findings }).toEqual({ status: 'clean', findings: [] });
    }
    for (const child of workers) child.stdin?.end();
    expect(await ended).toEqual([
      [0, null],
      [0, null],
    ]);
  });

  test('check repairs a store beside a service that writes, and takes nothing from it', async ({
    example,
  }) => {
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

  test('check lists everything that stands on a damaged layer', async ({ example }) => {
    change(example, example.ids.base);
    const { rebuild } = await checkStore(example.root);
    expect(rebuild.map(({ name, because }) => [name, because])).toEqual([
      ['base', 'base'],
      ['app', 'base'],
      ['work', 'base'],
      ['reader', 'base'],
    ]);
  });

  test('check can be limited to steps, and to snapshots and their ancestors', async ({ example }) => {
    change(example, example.ids.app);
    const at = (...only: string[]): Promise<string[]> => codesIn(example.root, { only });
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

  test('check reads the contents of layers only if it is asked to, and no layer if it is to be quick', async ({
    example,
  }) => {
    {
      await using driver = await OverlayDriver.open(example.root, { seal: 'content' });
      await commitLayer(driver, 'sealed', null, 'printf before > file');
      const sealed = await layerOf(driver, 'sealed');
      sh('cp -p file ../ref; printf after1 > file; touch -r ../ref file; rm ../ref', sealed);
    }
    expect(await codesIn(example.root)).toEqual([]);
    expect(await codesIn(example.root, { contents: true })).toEqual(['seal-broken']);
    change(example, example.ids.base);
    expect(await codesIn(example.root, { quick: true })).toEqual([]);
  });

  test('check ends when its time is over, with what it has found', async ({ example }) => {
    const report = await checkStore(example.root, { maxDuration: 0 });
    expect(report.status).toBe('incomplete');
    expect(report.steps.map(({ state }) => state)).toEqual(['partial', ...Array<string>(5).fill('skipped')]);
    expect(report.steps[5]?.reason).toContain('0 ms');
    expect((await checkStore(example.root, { maxDuration: 1e9 })).status).toBe('clean');
  });

  test('check ends with the reason of its signal, or with what its progress function throws', async ({
    example,
  }) => {
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

  test('check reports the progress of every step', async ({ example }) => {
    const progress: CheckProgress[] = [];
    await checkStore(example.root, { onProgress: (now) => progress.push(now) });
    const steps = [...new Set(progress.map(({ step }) => step))];
    expect(steps).toEqual(['database', 'graph', 'directories', 'layers', 'leftovers', 'mounts']);
  });

  test('check works on a read-only filesystem', async ({ undo }) => {
    const disk = makeDisk('ext4', 64);
    undo(() => disk.remove());
    const root = join(disk.path, 'store');
    leaveOpen(root, `for (let n = 0; n < 20; n += 1) await driver.prepare('k' + n);`);
    expect(readdirSync(root)).toContain('metadata.db-wal');
    execFileSync('mount', ['-o', 'remount,ro', disk.path]);
    const report = await checkStore(root, { repair: false });
    expect(report.status).toBe('clean');
    expect(report.steps.every(({ state }) => state === 'done')).toBe(true);
  });

  test('check works on a copy of a store that lacks the -shm file, and through a link to it', async ({
    root,
    place,
  }) => {
    leaveOpen(root, `for (let n = 0; n < 20; n += 1) await driver.prepare('k' + n);`);
    const copy = join(place, 'copy');
    copySync(root, copy, { preserveTimestamps: true });
    rmSync(join(copy, 'metadata.db-shm'));
    expect(readdirSync(copy)).toContain('metadata.db-wal');
    expect((await checkStore(copy)).findings.filter(({ severity }) => severity === 'error')).toEqual([]);
    symlinkSync(copy, join(place, 'link'));
    expect((await checkStore(join(place, 'link'))).root).toBe(copy);
  });

  test('check without room for its copy of the database says so, and does not call it damaged', async ({
    example,
    undo,
  }) => {
    const disk = makeDisk('tmpfs', 1);
    undo(() => disk.remove());
    writeFileSync(join(disk.path, 'filler'), Buffer.alloc(1000 * 1024));
    const { status, stderr } = spawnSync(process.execPath, [main, 'check', '--root', example.root], {
      encoding: 'utf8',
      env: { ...process.env, TMPDIR: disk.path },
    });
    expect({ status, stderr }).toEqual({
      status: 8,
      stderr: expect.stringContaining('RESOURCE_EXHAUSTED') as string,
    });
  });

  test('check follows no link out of the store', async ({ example, place }) => {
    const outside = join(place, 'outside');
    outputFileSync(join(outside, 'fs', 'file'), 'mine');
    rmSync(example.at('snapshots', example.ids.scratch), { recursive: true });
    symlinkSync(outside, example.at('snapshots', example.ids.scratch));
    const report = await checkStore(example.root, { repair: true });
    expect(report.status).toBe('repaired');
    expect(readFileSync(join(outside, 'fs', 'file'), 'utf8')).toBe('mine');
    expect(readdirSync(outside)).toEqual(['fs']);
  });

  test('check neither reads nor moves anything through a link in place of its own directories', async ({
    example,
    place,
  }) => {
    const outside = join(place, 'outside');
    mkdirSync(outside);
    renameSync(example.at('snapshots'), join(place, 'elsewhere'));
    symlinkSync(join(place, 'elsewhere'), example.at('snapshots'));
    expect(await codesIn(example.root)).toEqual(['snapshots-link']);
    rmSync(example.at('snapshots'));
    renameSync(join(place, 'elsewhere'), example.at('snapshots'));
    symlinkSync(outside, example.at('lost+found'));
    mkdirSync(example.at('snapshots', 'stray'));
    const { repairs } = await checkStore(example.root, { repair: true });
    expect(repairs).toMatchObject([
      { code: 'wrong-type', outcome: 'done' },
      { code: 'directory-unknown', outcome: 'done' },
    ]);
    expect(lstatSync(example.at('lost+found')).isDirectory()).toBe(true);
    expect(readdirSync(outside)).toEqual([]);
  });

  test('check leaves nothing behind in the directory for temporary files, however it ends', async ({
    example,
    target,
    undo,
  }) => {
    vi.stubEnv('TMPDIR', target);
    undo(() => vi.unstubAllEnvs());
    const seen = new Set<string>();
    const stop = new AbortController();
    const onProgress = (): void => {
      for (const name of readdirSync(target)) seen.add(name);
      stop.abort();
    };
    await expect(checkStore(example.root, { signal: stop.signal, onProgress })).rejects.toThrow('aborted');
    expect(readdirSync(target)).toEqual([]);
    await checkStore(example.root, { onProgress });
    // The copy of the database was there.
    expect([...seen]).toContainEqual(expect.stringMatching(/^overlite-check-/));
    expect(readdirSync(target)).toEqual([]);
  });

  test('repair leaves a note beside what it sets aside', async ({ example }) => {
    mkdirSync(example.at('snapshots', 'stray', 'deep'), { recursive: true });
    const { repairs } = await checkStore(example.root, { repair: true });
    const place = repairs[0]?.detail ?? '';
    expect(readdirSync(place)).toEqual(['deep']);
    expect(JSON.parse(readFileSync(`${place}.note`, 'utf8'))).toMatchObject({
      what: example.at('snapshots', 'stray'),
      why: expect.stringContaining('not named like the directory') as string,
    });
  });

  test('repair moves nothing on the word of a damaged database', async ({ example }) => {
    breakRules(example.root, `update snapshot set in_use = 7 where id = ${example.ids.base};`);
    mkdirSync(example.at('snapshots', 'stray'));
    const { repairs, status } = await checkStore(example.root, { repair: true });
    expect(status).toBe('damaged');
    expect(repairs).toMatchObject([{ code: 'directory-unknown', outcome: 'refused' }]);
    expect(readdirSync(example.at('snapshots'))).toContain('stray');
  });

  test('checkStore() refuses a root without a store', async ({ place, target }) => {
    await expect(checkStore(join(place, 'nowhere'))).rejects.toMatchObject({ code: 'FAILED_PRECONDITION' });
    await expect(checkStore(target)).rejects.toMatchObject({ code: 'FAILED_PRECONDITION' });
    await expect(checkStore('')).rejects.toMatchObject({ code: 'INVALID_ARGUMENT' });
    await expect(checkStore(7 as unknown as string)).rejects.toThrow(TypeError);
  });

  test('check says how a database that is lost can be brought back', async ({ example }) => {
    const messages = async (): Promise<string[]> =>
      (await checkStore(example.root)).findings.map(({ message }) => message);
    writeFileSync(example.at('metadata.db'), 'x'.repeat(9000));
    expect(await messages()).toEqual([expect.stringMatching(/overlite restore .* --salvage/)]);
    rmSync(example.at('metadata.db'));
    expect(await messages()).toEqual([
      expect.stringMatching(/no backup beside it, overlite restore takes one/),
    ]);
    mkdirSync(example.at('backups'));
    writeFileSync(example.at('backups', 'metadata-20300131T000000000Z.db'), '');
    expect(await messages()).toEqual([
      expect.stringMatching(/overlite restore brings back the newest backup$/),
    ]);
  });

  test('checkStore() rejects options that are unknown or of a wrong type with a TypeError', async ({
    example,
  }) => {
    for (const options of [
      { bogus: 1 },
      { quick: 1 },
      { only: 'layers' },
      { signal: {} },
      { onProgress: 1 },
      { maxDuration: 'x' },
    ]) {
      await expect(checkStore(example.root, options as object), inspect(options)).rejects.toThrow(TypeError);
    }
  });

  test('checkStore() rejects options that are out of range or contradict each other', async ({ example }) => {
    for (const options of [
      { maxDuration: -1 },
      { olderThan: Number.NaN },
      { dryRun: true },
      { quick: true, contents: true },
    ]) {
      await expect(checkStore(example.root, options), inspect(options)).rejects.toMatchObject({
        code: 'INVALID_ARGUMENT',
      });
    }
  });

  test('check() fails on a closed driver', async ({ driver }) => {
    await driver.close();
    await expect(driver.check()).rejects.toMatchObject({ code: 'FAILED_PRECONDITION' });
  });
});
