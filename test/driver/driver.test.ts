import { join } from 'node:path';
import Database from 'better-sqlite3';
import { describe, expect } from 'vitest';
import { OverlayDriver } from '../../src/index.ts';
import { DirectoryLock } from '../../src/layers/directory-lock.ts';
import { HeldRoot } from '../../src/layers/held-root.ts';
import { test } from '../support/fixtures.ts';
import { commitLayer, idsOnDisk } from '../support/layers.ts';

describe('writes that wait', () => {
  test('a write that waits for another process can be aborted until it begins', async ({ driver, root }) => {
    await driver.prepare('k');
    await commitLayer(driver, 'n', null, '');
    const other = new Database(join(root, 'metadata.db'));
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
    await expect(driver.prepare('x', null, { signal })).rejects.toThrow('enough');
  });

  test('close() does not wait until another process gives a lock up, and what waits for it fails', async ({
    root,
    undo,
  }) => {
    const driver = await OverlayDriver.open(root, { busyTimeout: 600_000, backups: false });
    await driver.prepare('k');
    const id = (await driver.stat('k')).id;
    const held = new HeldRoot(root);
    const lock = DirectoryLock.take(held, id);
    held.close();
    undo(() => lock?.release());
    const other = new Database(join(root, 'metadata.db'));
    undo(() => other.close());
    other.exec('begin immediate');
    const waiting = Promise.allSettled([
      driver.prepare('x'),
      driver.update('k', { labels: { a: 'b' } }),
      driver.transaction((tx) => tx.remove('k')),
      driver.commit('n', 'k'),
    ]);
    await driver.close();
    const closed = {
      status: 'rejected',
      reason: { code: 'FAILED_PRECONDITION', message: 'the driver is closed' },
    };
    expect(await waiting).toMatchObject([closed, closed, closed, closed]);
    await expect(driver.prepare('y')).rejects.toMatchObject(closed.reason);
    other.exec('rollback');
    const names = other.prepare('select name from snapshot').pluck().all();
    expect(names).toEqual(['k']);
  });

  test('close() finishes a write whose lock another process gives up soon', async ({ root, undo }) => {
    const driver = await OverlayDriver.open(root, { busyTimeout: 600_000, backups: false });
    const other = new Database(join(root, 'metadata.db'));
    undo(() => other.close());
    other.exec('begin immediate');
    const prepared = driver.prepare('x');
    const closed = driver.close();
    setImmediate(() => other.exec('rollback'));
    expect(await prepared).toHaveLength(1);
    await closed;
  });

  test('a signal that is not an AbortSignal is a TypeError', async ({ driver }) => {
    await driver.prepare('k');
    await expect(driver.remove('k', { signal: 'no' as unknown as AbortSignal })).rejects.toThrow(TypeError);
    const signal = 7 as unknown as AbortSignal;
    await expect(driver.prepare('x', null, { signal })).rejects.toThrow(TypeError);
  });

  test('onTransaction is told how many writes shared each transaction', async ({ root }) => {
    const transactions: number[] = [];
    await using driver = await OverlayDriver.open(root, {
      backups: false,
      onTransaction: (writes) => transactions.push(writes),
    });
    await driver.prepare('k');
    await Promise.all(['a', 'b', 'c'].map((key) => driver.view(key)));
    expect(transactions).toEqual([1, 3]);
    const wrong = { onTransaction: 'tell' as unknown as () => void };
    await expect(OverlayDriver.open(root, wrong)).rejects.toThrow(TypeError);
  });

  test('writes that share a transaction fail each alone', async ({ driver, root }) => {
    const results = await Promise.allSettled([
      driver.prepare('a'),
      driver.prepare('a'),
      driver.prepare('b', 'missing'),
      driver.prepare('c'),
      driver.remove('missing'),
      driver.transaction(() => {
        throw new Error('mine');
      }),
      driver.prepare('d'),
    ]);
    expect(results.map(({ status }) => status)).toEqual([
      'fulfilled',
      'rejected',
      'rejected',
      'fulfilled',
      'rejected',
      'rejected',
      'fulfilled',
    ]);
    expect(idsOnDisk(root)).toEqual(['1', '2', '3']);
  });
});
