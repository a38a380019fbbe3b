import { readdirSync } from 'node:fs';
import Database from 'better-sqlite3';
import { describe, expect } from 'vitest';
import { OverlayDriver } from '../../src/index.ts';
import { type Running, test } from '../support/cli.ts';
import { needs } from '../support/needs.ts';
import { assertWhole } from '../support/store.ts';
import { sh } from '../support/tree.ts';
import { waitFor } from '../support/wait-for.ts';

const lacking = needs('root', 'sqlite3');

/** Sends a signal to a command once something is so, and waits for its end. */
async function stopOnce(
  what: string,
  isSo: () => boolean,
  { command, signal }: { command: Running; signal: NodeJS.Signals },
): Promise<unknown> {
  await waitFor(what, () => command.hasEnded() || isSo());
  command.process.kill(signal);
  const { status, stderr } = await command.ended();
  return { status, stderr };
}

describe.skipIf(lacking)(`a command that a signal stops${lacking}`, () => {
  test('`checkpoint` that is stopped undoes what it has begun', async ({
    example,
    start,
    printed,
    rows,
    undo,
  }) => {
    sh('seq 5000 | xargs touch', example.at('snapshots', example.ids.work, 'fs'));
    const before = rows();
    const database = new Database(example.at('metadata.db'), { readonly: true });
    undo(() => database.close());
    const reservations = database.prepare(`select id from removal where state = 'reserved'`);
    for (const [signal, status] of [
      ['SIGINT', 130],
      ['SIGTERM', 143],
      ['SIGHUP', 129],
    ] as const) {
      const command = start(['checkpoint', 'captured', 'work']);
      expect(
        await stopOnce('a reservation', () => reservations.all().length > 0, { command, signal }),
      ).toEqual({ status, stderr: `overlite: stopped by ${signal}\n` });
      expect(rows()).toEqual(before);
    }
    printed('cleanup');
    assertWhole(example.root);
    expect(readdirSync(example.at('snapshots'))).toHaveLength(5);
    expect(printed('checkpoint', 'captured', 'work')).toMatch(/^captured is committed: 5002 inodes/);
  });

  test('`cleanup` that is stopped leaves the rest to the next one', async ({
    example,
    start,
    printed,
    query,
  }) => {
    const driver = await OverlayDriver.open(example.root, { asyncRemove: true, backups: false });
    for (let n = 1; n <= 24; n += 1) {
      await driver.prepare(`k${n}`);
      sh('seq 600 | xargs touch', `${(await driver.stat(`k${n}`)).directory}/fs`);
      await driver.remove(`k${n}`);
    }
    await driver.close();
    const directories = (): number => readdirSync(example.at('snapshots')).length;
    const all = directories();
    const command = start(['cleanup']);
    expect(await stopOnce('a deletion', () => directories() < all, { command, signal: 'SIGINT' })).toEqual({
      status: 130,
      stderr: 'overlite: stopped by SIGINT\n',
    });
    expect(directories()).toBeGreaterThan(5);
    printed('cleanup');
    expect(query('select id from removal')).toEqual([]);
    expect(readdirSync(example.at('snapshots'))).toHaveLength(5);
    assertWhole(example.root);
  });
});
