import { execFile } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import BetterSqlite3 from 'better-sqlite3';
import { expect, test } from 'vitest';
import { OverlayDriver } from '../../src/index.ts';
import { assertWhole, useStore } from '../support/store.ts';

const run = promisify(execFile);

async function child(script: string, ...args: string[]): Promise<unknown> {
  const file = fileURLToPath(new URL(`../support/${script}`, import.meta.url));
  const { stdout } = await run(process.execPath, [file, ...args]);
  return JSON.parse(stdout);
}

const store = useStore();

test('twenty processes open a new root at once, and each of them can use it', async () => {
  const root = `${store.root}/new`;
  const opened = await Promise.all(Array.from({ length: 20 }, () => child('open-root.mjs', root)));
  expect(opened).toEqual(Array.from({ length: 20 }, () => ({ opened: true })));
  await using driver = await OverlayDriver.open(root);
  const keys = [];
  for await (const { name } of driver.snapshots()) keys.push(name);
  expect(keys).toHaveLength(20);
  await driver.close();
  assertWhole(root);
  // The other tests' store is checked at its own root.
  await (await OverlayDriver.open(store.root)).close();
});

test('four processes do five hundred mixed operations each on one root, and all that they acknowledged is there', async () => {
  const names = ['a', 'b', 'c', 'd'];
  const results = await Promise.all(names.map((name) => child('mixed-work.mjs', store.root, name, '500')));
  const expected: Record<string, unknown> = {};
  for (const result of results) {
    const { mine, failures } = result as { mine: Record<string, string>; failures: string[] };
    expect(failures).toEqual([]);
    Object.assign(expected, mine);
  }
  await using driver = await OverlayDriver.open(store.root);
  const found: Record<string, string> = {};
  for await (const { name, kind } of driver.snapshots()) found[name] = kind;
  expect(found).toEqual(expected);
});

test('while another connection holds the lock, writes wait with the event loop free, then fail with nothing done', async () => {
  await using driver = await OverlayDriver.open(store.root, { busyTimeout: 300 });
  const other = new BetterSqlite3(`${store.root}/metadata.db`);
  other.exec('begin immediate');
  let turns = 0;
  const counter = setInterval(() => (turns += 1), 5);
  await expect(driver.prepare('a')).rejects.toMatchObject({ code: 'UNAVAILABLE' });
  clearInterval(counter);
  expect(turns).toBeGreaterThan(5);
  expect(await driver.exists('a')).toBe(false);
  const waiting = driver.prepare('b');
  other.exec('rollback');
  other.close();
  await waiting;
  expect((await driver.stat('b')).id).toBe(1);
});
