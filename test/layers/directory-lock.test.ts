import {
  existsSync,
  mkdirSync,
  readFileSync,
  readdirSync,
  renameSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { describe, expect } from 'vitest';
import { OverlayDriver, type Progress } from '../../src/index.ts';
import { test as base } from '../support/fixtures.ts';
import { idsOnDisk, layerOf } from '../support/layers.ts';
import { type StartedProcess, startProcess } from '../support/process.ts';
import { sh } from '../support/tree.ts';
import { waitFor } from '../support/wait-for.ts';

const script = join(import.meta.dirname, '../support/hold-checkpoint.mjs');

const test = base.extend<{
  /** Starts a process that stops in the middle of a checkpoint of "k", until it is told to finish or killed. */
  hold: () => Promise<StartedProcess>;
}>({
  hold: async ({ root, undo }, use) => {
    await use(async () => {
      const holder = await startProcess('holding', process.execPath, [script, root]);
      undo(() => holder.kill());
      return holder;
    });
  },
});

describe('the reservation of a copy', () => {
  test('cleanup() leaves a copy that another process is making, and it becomes the snapshot', async ({
    driver,
    root,
    hold,
  }) => {
    await driver.prepare('k');
    writeFileSync(join(await layerOf(driver, 'k'), 'file'), 'x');
    const other = await hold();
    expect(idsOnDisk(root)).toEqual(['1', '2']);
    expect(await driver.cleanup()).toEqual({ removed: 0, deferred: [] });
    await using third = await OverlayDriver.open(root, { backups: false });
    expect(await third.cleanup()).toEqual({ removed: 0, deferred: [] });
    expect(idsOnDisk(root)).toEqual(['1', '2']);
    expect(await other.finish()).toMatch(/done/);
    expect(readFileSync(join(await layerOf(driver, 'n'), 'file'), 'utf8')).toBe('x');
  });

  test('cleanup() leaves a copy that this process is making', async ({ driver }) => {
    await driver.prepare('k');
    let cleaning: Promise<unknown> | undefined;
    const onProgress = ({ phase }: Progress): void => {
      if (phase === 'measuring') cleaning ??= driver.cleanup();
    };
    await driver.checkpoint('n', 'k', { onProgress });
    expect(await cleaning).toEqual({ removed: 0, deferred: [] });
    expect(existsSync(await layerOf(driver, 'n'))).toBe(true);
  });

  test('cleanup() deletes the copy of a process that was killed', async ({ driver, root, hold }) => {
    await driver.prepare('k');
    writeFileSync(join(await layerOf(driver, 'k'), 'file'), 'x');
    await (await hold()).kill();
    expect(idsOnDisk(root)).toEqual(['1', '2']);
    expect(await driver.cleanup()).toEqual({ removed: 1, deferred: [] });
    expect(idsOnDisk(root)).toEqual(['1']);
    expect(await driver.exists('n')).toBe(false);
    await driver.checkpoint('n', 'k');
    expect((await driver.stat('n')).id).toBe(3);
  });

  test('open() deletes the copy of a process that was killed, without being asked', async ({
    driver,
    root,
    hold,
  }) => {
    await driver.prepare('k');
    await driver.prepare('removed');
    await (await hold()).kill();
    await using lazy = await OverlayDriver.open(root, { asyncRemove: true, backups: false });
    await lazy.remove('removed');
    expect(idsOnDisk(root)).toEqual(['1', '2', '3']);
    await using next = await OverlayDriver.open(root, { backups: false });
    await waitFor('the copy and what was removed to be deleted', () => idsOnDisk(root).length === 1);
    expect(await next.exists('k')).toBe(true);
  });

  test('cleanup() forgets a copy whose directory never became durable', async ({ driver, root, hold }) => {
    await driver.prepare('k');
    await (await hold()).kill();
    sh('rm -r snapshots/2', root);
    expect(await driver.cleanup()).toEqual({ removed: 1, deferred: [] });
  });

  test('cleanup() leaves and reports a copy whose directory someone replaced by something else', async ({
    driver,
    place,
    root,
    hold,
    undo,
  }) => {
    await driver.prepare('k');
    await (await hold()).kill();
    const outside = join(place, 'outside');
    mkdirSync(join(outside, 'fs'), { recursive: true });
    const directory = join(root, 'snapshots/2');
    renameSync(directory, join(outside, 'away'));
    symlinkSync(outside, directory);
    undo(() => sh('rm -f snapshots/2', root));
    const { removed, deferred } = await driver.cleanup();
    expect(removed).toBe(0);
    expect(deferred).toMatchObject([{ path: directory }]);
    expect(readdirSync(outside).toSorted()).toEqual(['away', 'fs']);
    sh('rm snapshots/2', root);
    expect((await driver.cleanup()).removed).toBe(1);
  });
});
