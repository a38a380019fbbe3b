import { spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import BetterSqlite3 from 'better-sqlite3';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { OverlayDriver } from '../../src/index.ts';
import { assertWhole, makeRoot } from '../support/store.ts';

const script = fileURLToPath(new URL('../support/prepare-many.mjs', import.meta.url));
const hasStrace = spawnSync('strace', ['-V']).status === 0;

let store: ReturnType<typeof makeRoot>;
beforeEach(() => {
  store = makeRoot();
});
afterEach(() => {
  try {
    assertWhole(store.root);
  } finally {
    store.remove();
  }
});

describe.skipIf(!hasStrace)(`a disk that fails${hasStrace ? '' : ' (needs strace)'}`, () => {
  test.each([
    ['fsync', 'EIO', 12],
    ['fsync', 'EIO', 13],
    ['fsync', 'EIO', 14],
    ['pwrite64', 'ENOSPC', 40],
    ['pwrite64', 'EIO', 41],
    ['mkdir', 'ENOSPC', 12],
  ])(
    '%s with %s from call %i on: writes fail with a typed error, and what was acknowledged is there',
    async (call, error, when) => {
      await (await OverlayDriver.open(store.root)).close();
      const { stdout } = spawnSync(
        'strace',
        [
          '-f',
          '-qq',
          '-o',
          '/dev/null',
          '-e',
          `trace=${call}`,
          '-e',
          `inject=${call}:error=${error}:when=${when}+`,
        ].concat([process.execPath, script, store.root, '20']),
        { encoding: 'utf8', env: { ...process.env, UV_THREADPOOL_SIZE: '1' } },
      );
      const outcomes = stdout
        .trim()
        .split('\n')
        .map((line) => JSON.parse(line) as { key: string; code: string });
      expect(outcomes).toHaveLength(20);
      const failed = outcomes.filter(({ code }) => code !== 'OK');
      expect(failed.length).toBeGreaterThan(0);
      for (const { code } of failed)
        expect(['UNAVAILABLE', 'RESOURCE_EXHAUSTED', 'DATA_LOSS']).toContain(code);
      await using driver = await OverlayDriver.open(store.root);
      for (const { key, code } of outcomes) if (code === 'OK') expect(await driver.exists(key)).toBe(true);
      // What is in the way from before does not keep the next one from being made.
      await driver.prepare('afterwards');
    },
  );
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
