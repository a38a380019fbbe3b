import { execFileSync, spawnSync } from 'node:child_process';
import { readFileSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect } from 'vitest';
import { OverlayDriver, restoreStore } from '../../src/index.ts';
import { type Example, copyExample } from '../support/damage.ts';
import { test } from '../support/fixtures.ts';
import { needs } from '../support/needs.ts';
import { limitFor, sample } from '../support/sample.ts';

const lacking = needs('root', 'sqlite3', 'strace');
const cli = join(import.meta.dirname, '../../dist/cli/main.js');

/** The calls by which a restoration changes anything. */
const CALLS = ['rename', 'renameat', 'link', 'unlink', 'fsync', 'pwrite64', 'mkdirat', 'write'];

/** Restores a store from a backup under strace. */
function restoreTraced(root: string, backup: string, options: readonly string[]): void {
  spawnSync('strace', ['-f', ...options, process.execPath, cli, 'restore', '--root', root, backup]);
}

/** The keys and names in a store; `undefined` if it cannot be opened. */
async function namesIn(root: string): Promise<string[] | undefined> {
  let driver: OverlayDriver;
  try {
    driver = await OverlayDriver.open(root, { asyncRemove: true, backups: false });
  } catch (error) {
    expect(error).toMatchObject({ code: 'FAILED_PRECONDITION' });
    return undefined;
  }
  const names: string[] = [];
  for await (const { name } of driver.snapshots()) names.push(name);
  await driver.close();
  return names.toSorted();
}

/** Every call that one thread makes below the root, by its name and its number. */
function pointsOf(root: string, backup: string, log: string): { call: string; when: number }[] {
  restoreTraced(root, backup, ['-o', log, '-e', `trace=${CALLS.join()}`]);
  const counts = new Map<string, number>();
  for (const line of readFileSync(log, 'utf8').split('\n')) {
    const [, thread, call] = /^(\d+) +(\w+)\(/.exec(line) ?? [];
    if (call !== undefined) counts.set(`${call} ${thread}`, (counts.get(`${call} ${thread}`) ?? 0) + 1);
  }
  return CALLS.flatMap((call) => {
    const most = Math.max(0, ...[...counts].filter(([key]) => key.startsWith(`${call} `)).map(([, n]) => n));
    return Array.from({ length: most }, (_, index) => ({ call, when: index + 1 }));
  });
}

describe.skipIf(lacking)(`a restoration that is killed${lacking}`, () => {
  test(
    'leaves the old store, the new one, or one that nobody opens until it is restored again',
    async ({ example, place }) => {
      const backup = join(place, 'backup.db');
      const driver = await OverlayDriver.open(example.root, { asyncRemove: true, backups: false });
      await driver.backup(backup);
      await driver.prepare('later');
      await driver.close();
      const fresh = (name: string): Example => copyExample(example, join(place, name));
      const before = await namesIn(fresh('untouched').root);
      const after = before?.filter((name) => name !== 'later');
      const points = pointsOf(fresh('traced').root, backup, join(place, 'log'));
      expect(points.length).toBeGreaterThan(20);
      for (const { call, when } of sample(points, { some: 12, others: 40 })) {
        const { root } = fresh('store');
        const where = `at ${call} ${when}`;
        restoreTraced(root, backup, [
          '-o',
          '/dev/null',
          '-e',
          `trace=${call}`,
          '-e',
          `inject=${call}:signal=KILL:when=${when}`,
        ]);
        const names = await namesIn(root);
        if (names !== undefined) expect([before, after], where).toContainEqual(names);
        await restoreStore(root, { from: backup });
        expect(await namesIn(root), where).toEqual(after);
        expect(
          readdirSync(root).filter((name) => name.includes('restor')),
          where,
        ).toEqual([]);
        execFileSync('rm', ['-rf', root]);
      }
    },
    limitFor(60),
  );
});
