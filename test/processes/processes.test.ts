import { execFile } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import BetterSqlite3 from 'better-sqlite3';
import { expect } from 'vitest';
import { OverlayDriver } from '../../src/index.ts';
import { test } from '../support/fixtures.ts';
import { needs } from '../support/needs.ts';

const run = promisify(execFile);

async function child(script: string, ...args: string[]): Promise<unknown> {
  const file = fileURLToPath(new URL(`../support/${script}`, import.meta.url));
  const { stdout } = await run(process.execPath, [file, ...args]);
  return JSON.parse(stdout);
}

const lacking = needs('sqlite3');

test.skipIf(lacking)(
  `twenty processes can open a new root at once, and each of them can use it${lacking}`,
  async ({ root }) => {
    const opened = await Promise.all(Array.from({ length: 20 }, () => child('open-root.mjs', root)));
    expect(opened).toEqual(Array.from({ length: 20 }, () => ({ opened: true })));
    await using driver = await OverlayDriver.open(root);
    const keys = [];
    for await (const { name } of driver.snapshots()) keys.push(name);
    expect(keys).toHaveLength(20);
  },
);

test.skipIf(lacking)(
  `all that four processes acknowledge is there after 250 mixed operations of each on one root${lacking}`,
  async ({ root }) => {
    await (await OverlayDriver.open(root)).close();
    const names = ['a', 'b', 'c', 'd'];
    const results = await Promise.all(names.map((name) => child('mixed-work.mjs', root, name, '250')));
    const expected: Record<string, unknown> = {};
    for (const result of results) {
      const { mine, failures } = result as { mine: Record<string, string>; failures: string[] };
      expect(failures).toEqual([]);
      Object.assign(expected, mine);
    }
    await using driver = await OverlayDriver.open(root);
    const found: Record<string, string> = {};
    for await (const { name, kind } of driver.snapshots()) found[name] = kind;
    expect(found).toEqual(expected);
  },
);

test.skipIf(lacking)(
  `a write that waits for the lock of another connection leaves the event loop free, then fails and changes nothing${lacking}`,
  async ({ root }) => {
    await using driver = await OverlayDriver.open(root, { busyTimeout: 300 });
    const other = new BetterSqlite3(`${root}/metadata.db`);
    other.exec('begin immediate');
    let turns = 0;
    const counter = setInterval(() => (turns += 1), 5);
    await expect(driver.prepare('a')).rejects.toMatchObject({ code: 'UNAVAILABLE' });
    clearInterval(counter);
    expect(turns).toBeGreaterThan(0);
    expect(await driver.exists('a')).toBe(false);
    const waiting = driver.prepare('b');
    other.exec('rollback');
    other.close();
    await waiting;
    expect((await driver.stat('b')).id).toBe(1);
  },
);
