import { existsSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect } from 'vitest';
import type { Transaction } from '../../src/index.ts';
import { test } from '../support/fixtures.ts';
import { idsOnDisk } from '../support/layers.ts';
import { needs } from '../support/needs.ts';
import { mustRun } from '../support/shell.ts';

describe('a transaction', () => {
  test('transaction() does several things together and resolves to what its function returned', async ({
    driver,
    root,
  }) => {
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
    expect(idsOnDisk(root)).toEqual(['2', '3']);
  });

  test('transaction() whose function throws leaves nothing, not even on disk, and rejects with what was thrown', async ({
    driver,
    root,
  }) => {
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
    expect(idsOnDisk(root)).toEqual(['1']);
    expect(await driver.exists('keep')).toBe(true);
    await driver.prepare('d');
    expect((await driver.stat('d')).id).toBe(2);
  });

  const lacking = needs('sqlite3');
  test.skipIf(lacking)(
    `an operation of a transaction that the database refuses throws a SnapshotError${lacking}`,
    async ({ driver, root }) => {
      const database = join(root, 'metadata.db');
      mustRun(
        database,
        `create trigger refuse before insert on snapshot begin select raise(abort, 'no'); end;`,
      );
      const error = expect.objectContaining({ name: 'SnapshotError' }) as Error;
      await driver.transaction((tx) => {
        expect(() => tx.prepare('a')).toThrow(error);
      });
      await expect(driver.transaction((tx) => tx.prepare('a'))).rejects.toEqual(error);
      mustRun(database, 'drop trigger refuse;');
    },
  );

  test('transaction() rejects with undefined if its function throws that', async ({ driver }) => {
    await expect(
      driver.transaction(() => {
        throw undefined;
      }),
    ).rejects.toBe(undefined);
  });

  test('a transaction goes on after an operation in it that failed, which changed nothing', async ({
    driver,
    root,
  }) => {
    await driver.transaction((tx) => {
      tx.prepare('a');
      expect(() => tx.prepare('a')).toThrow(expect.objectContaining({ code: 'ALREADY_EXISTS' }));
      expect(() => tx.prepare('b', 'missing')).toThrow(expect.objectContaining({ code: 'NOT_FOUND' }));
      tx.prepare('c');
    });
    expect(idsOnDisk(root)).toEqual(['1', '2']);
  });

  test('transaction() with an asynchronous function is a TypeError and leaves nothing', async ({
    driver,
    root,
  }) => {
    await expect(
      driver.transaction(async (tx) => {
        tx.prepare('a');
        await Promise.resolve();
        throw new Error('never seen by anyone');
      }),
    ).rejects.toThrow(TypeError);
    expect(idsOnDisk(root)).toEqual([]);
  });

  test('a transaction is over when its function has returned', async ({ driver }) => {
    let kept: Transaction | undefined;
    await driver.transaction((tx) => {
      kept = tx;
    });
    expect(() => kept?.prepare('late')).toThrow(expect.objectContaining({ code: 'FAILED_PRECONDITION' }));
  });

  test('transaction() runs its function once, even in a group with sixty other writes', async ({
    driver,
    root,
  }) => {
    let calls = 0;
    const others = Array.from({ length: 60 }, (_, i) => driver.prepare(`o${i}`));
    await Promise.all([...others, driver.transaction((tx) => [calls++, tx.prepare('t')])]);
    expect(calls).toBe(1);
    expect(idsOnDisk(root)).toHaveLength(61);
  });

  test('a transaction commits a layer with its own seal, and with no other', async ({ driver }) => {
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

  test('a seal is refused once its snapshot is gone, even if the key is used again', async ({ driver }) => {
    await driver.prepare('a');
    const seal = await driver.seal('a');
    await driver.remove('a');
    await driver.prepare('a');
    await expect(driver.transaction((tx) => tx.commit('b', 'a', { seal }))).rejects.toMatchObject({
      code: 'FAILED_PRECONDITION',
    });
  });

  test('commit() in a transaction cannot copy a layer that is in use', async ({ driver }) => {
    await driver.prepare('k');
    const seal = await driver.seal('k');
    await expect(
      driver.transaction((tx) => tx.commit('n', 'k', { seal, inUse: 'copy' as 'allow' })),
    ).rejects.toMatchObject({ code: 'INVALID_ARGUMENT' });
  });
});
