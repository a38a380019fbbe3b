import { existsSync, readdirSync, writeFileSync } from 'node:fs';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { OverlayDriver, type Transaction } from '../../src/index.ts';
import { useStore } from '../support/store.ts';

const store = useStore();
let driver: OverlayDriver;
beforeEach(async () => {
  driver = await OverlayDriver.open(store.root);
});
afterEach(() => driver.close());

function layers(): string[] {
  return readdirSync(`${store.root}/snapshots`).toSorted();
}

describe('a transaction', () => {
  test('does several things together and resolves to what the function returned', async () => {
    await driver.prepare('old');
    const result = await driver.transaction((tx) => {
      tx.prepare('k');
      const info = tx.commit('base', 'k', { labels: { a: 'b' } });
      const mounts = tx.prepare('next', 'base');
      tx.view('look', 'base');
      tx.remove('old');
      expect(tx.exists('old')).toBe(false);
      expect(tx.parent('next')).toBe('base');
      return { info, mounts, updated: tx.update('next', { labels: { x: 'y' } }) };
    });
    expect(result.info).toEqual(await driver.stat('base'));
    expect(result.mounts).toEqual(await driver.mounts('next'));
    expect(result.updated.labels).toEqual({ x: 'y' });
    expect(layers()).toEqual(['2', '3']);
  });

  test('that throws leaves nothing, on disk neither, and hands on what was thrown', async () => {
    await driver.prepare('keep');
    const thrown = new Error('changed my mind');
    await expect(
      driver.transaction((tx) => {
        tx.prepare('a');
        tx.commit('b', 'a');
        tx.prepare('c', 'b');
        tx.remove('keep');
        throw thrown;
      }),
    ).rejects.toBe(thrown);
    expect(layers()).toEqual(['1']);
    expect(await driver.exists('keep')).toBe(true);
    await driver.prepare('d');
    expect((await driver.stat('d')).id).toBe(2);
  });

  test('may throw anything, undefined too', async () => {
    await expect(
      driver.transaction(() => {
        throw undefined;
      }),
    ).rejects.toBe(undefined);
  });

  test('goes on after an operation in it that failed, which changed nothing', async () => {
    await driver.transaction((tx) => {
      tx.prepare('a');
      expect(() => tx.prepare('a')).toThrow(expect.objectContaining({ code: 'ALREADY_EXISTS' }));
      expect(() => tx.prepare('b', 'missing')).toThrow(expect.objectContaining({ code: 'NOT_FOUND' }));
      tx.prepare('c');
    });
    expect(layers()).toEqual(['1', '2']);
  });

  test('with an asynchronous function is a TypeError and leaves nothing', async () => {
    await expect(
      driver.transaction(async (tx) => {
        tx.prepare('a');
        await Promise.resolve();
        throw new Error('never seen by anyone');
      }),
    ).rejects.toThrow(TypeError);
    expect(layers()).toEqual([]);
  });

  test('is over when its function is', async () => {
    let kept: Transaction | undefined;
    await driver.transaction((tx) => {
      kept = tx;
    });
    expect(() => kept?.prepare('late')).toThrow(expect.objectContaining({ code: 'FAILED_PRECONDITION' }));
  });

  test('runs its function once, beside sixty others in the same group', async () => {
    let calls = 0;
    const others = Array.from({ length: 60 }, (_, i) => driver.prepare(`o${i}`));
    await Promise.all([...others, driver.transaction((tx) => [calls++, tx.prepare('t')])]);
    expect(calls).toBe(1);
    expect(layers()).toHaveLength(61);
  });

  test('commits a layer with its seal, and with no other', async () => {
    const [mount] = await driver.prepare('a');
    await driver.prepare('b');
    writeFileSync(`${mount?.source}/file`, 'content');
    const seal = await driver.seal('a');
    expect(seal.usage).toEqual(await driver.usage('a'));
    const refusal = { code: 'FAILED_PRECONDITION' };
    await expect(driver.transaction((tx) => tx.commit('c', 'a'))).rejects.toMatchObject(refusal);
    await expect(driver.transaction((tx) => tx.commit('c', 'b', { seal }))).rejects.toMatchObject(refusal);
    await expect(driver.transaction((tx) => tx.commit('c', 'a', { seal: { ...seal } }))).rejects.toThrow(
      TypeError,
    );
    const info = await driver.transaction((tx) => tx.commit('c', 'a', { seal }));
    expect(await driver.usage('c')).toEqual(seal.usage);
    await driver.cleanup();
    expect(existsSync(`${info.directory}/work`)).toBe(false);
    expect(existsSync(`${info.directory}/fs/file`)).toBe(true);
  });

  test('a seal does not outlive its snapshot', async () => {
    await driver.prepare('a');
    const seal = await driver.seal('a');
    await driver.remove('a');
    await driver.prepare('a');
    await expect(driver.transaction((tx) => tx.commit('b', 'a', { seal }))).rejects.toMatchObject({
      code: 'FAILED_PRECONDITION',
    });
  });
});

describe('writes that wait together', () => {
  test('share a transaction and fail each alone', async () => {
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
    expect(layers()).toEqual(['1', '2', '3']);
  });
});
