import { join } from 'node:path';
import Database from 'better-sqlite3';
import { describe, expect } from 'vitest';
import { OverlayDriver } from '../../src/index.ts';
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
