import { existsSync, mkdirSync, readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import Database from 'better-sqlite3';
import { describe, expect, test } from 'vitest';
import { OverlayDriver } from '../../src/index.ts';
import { isRoot } from '../support/needs.ts';
import { useStore } from '../support/store.ts';

const store = useStore();
const needs = isRoot ? '' : ' (needs root)';
const directories = (): string[] => readdirSync(join(store.root, 'snapshots'));
const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

async function makeMany(driver: OverlayDriver, count: number): Promise<void> {
  await driver.transaction((tx) => {
    for (let i = 0; i < count; i += 1) tx.prepare(`k${i}`);
  });
  for (const id of directories()) {
    mkdirSync(join(store.root, 'snapshots', id, 'fs/a/b'), { recursive: true });
    writeFileSync(join(store.root, 'snapshots', id, 'fs/a/b/file'), 'x');
  }
}

describe.skipIf(!isRoot)(`removals in the background${needs}`, () => {
  test('resolve once the row is gone, and go from disk by themselves', async () => {
    await using driver = await OverlayDriver.open(store.root, { asyncRemove: 'background', backups: false });
    await makeMany(driver, 50);
    const results = await Promise.all(Array.from({ length: 50 }, (_, i) => driver.remove(`k${i}`)));
    expect(results).toEqual(results.map(() => ({})));
    expect(await driver.exists('k0')).toBe(false);
    while (directories().length > 0) await turn();
    await driver.cleanup();
    expect(await driver.pendingRemovals()).toBe(0);
  });

  test('go on after the driver was closed, when the store is opened again', async () => {
    const driver = await OverlayDriver.open(store.root, { asyncRemove: 'background', backups: false });
    await makeMany(driver, 200);
    await driver.transaction((tx) => {
      for (let i = 0; i < 200; i += 1) tx.remove(`k${i}`);
    });
    await driver.close();
    const left = directories().length;
    expect(left).toBeGreaterThan(0);
    await using next = await OverlayDriver.open(store.root, { asyncRemove: 'background', backups: false });
    while (directories().length > 0) await turn();
    expect(await next.cleanup()).toMatchObject({ deferred: [] });
  });

  test('are waited for by a cleanup, which can be given up', async () => {
    await using driver = await OverlayDriver.open(store.root, { asyncRemove: true, backups: false });
    await makeMany(driver, 50);
    await Promise.all(Array.from({ length: 50 }, (_, i) => driver.remove(`k${i}`)));
    expect(await driver.pendingRemovals()).toBe(50);
    const stopping = new AbortController();
    stopping.abort(new Error('enough'));
    await expect(driver.cleanup({ signal: stopping.signal })).rejects.toThrow('enough');
    expect(directories()).toHaveLength(50);
    expect(await driver.cleanup()).toEqual({ removed: 50, deferred: [] });
    expect(existsSync(join(store.root, 'snapshots/1'))).toBe(false);
  });
});

describe.skipIf(!isRoot)(`writes that wait${needs}`, () => {
  test('can be given up until they begin', async () => {
    await using driver = await OverlayDriver.open(store.root, { backups: false });
    await driver.prepare('k');
    await driver.prepare('making');
    await driver.commit('n', 'making');
    const other = new Database(join(store.root, 'metadata.db'));
    other.exec('begin immediate');
    const stopping = new AbortController();
    const { signal } = stopping;
    const writes = Promise.allSettled([
      driver.prepare('x', null, { signal }),
      driver.view('y', 'n', { labels: { a: 'b' }, signal }),
      driver.update('k', { labels: { a: 'b' }, signal }),
      driver.remove('k', { signal }),
      driver.delete('n', { signal }),
    ]);
    const kept = driver.prepare('kept');
    stopping.abort(new Error('enough'));
    other.exec('rollback');
    other.close();
    for (const outcome of await writes) expect(outcome).toMatchObject({ reason: { message: 'enough' } });
    await kept;
    const names: string[] = [];
    for await (const { name, labels } of driver.snapshots()) {
      names.push(name);
      expect(labels).toEqual({});
    }
    expect(names).toEqual(['k', 'n', 'kept']);
    const late = driver.prepare('x', null, { signal });
    await expect(late).rejects.toThrow('enough');
    await expect(driver.remove('k', { signal: 'no' as unknown as AbortSignal })).rejects.toThrow(TypeError);
    await expect(driver.prepare('x', null, { signal: 7 as unknown as AbortSignal })).rejects.toThrow(
      TypeError,
    );
  });

  test('that share a transaction are told of together', async () => {
    const transactions: number[] = [];
    await using driver = await OverlayDriver.open(store.root, {
      backups: false,
      onTransaction: (writes) => transactions.push(writes),
    });
    await driver.prepare('k');
    await Promise.all(['a', 'b', 'c'].map((key) => driver.view(key)));
    expect(transactions).toEqual([1, 3]);
    const wrong = { onTransaction: 'tell' as unknown as () => void };
    await expect(OverlayDriver.open(store.root, wrong)).rejects.toThrow(TypeError);
  });
});
