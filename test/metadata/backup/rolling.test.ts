import { existsSync, mkdirSync, readdirSync, utimesSync } from 'node:fs';
import { join } from 'node:path';
import { outputFileSync } from 'fs-extra/esm';
import { describe, expect } from 'vitest';
import { OverlayDriver, checkStore } from '../../../src/index.ts';
import { test } from '../../support/fixtures.ts';
import { needs } from '../../support/needs.ts';
import { mustRun } from '../../support/shell.ts';
import { waitFor } from '../../support/wait-for.ts';

const lacking = needs('root', 'sqlite3');

describe.skipIf(lacking)(`automatic backups${lacking}`, () => {
  test('an open driver backs up its database again and again, and keeps the newest backups', async ({
    example,
  }) => {
    const backups = example.at('backups');
    // Files that crashes have left half written, one long ago and one just now.
    for (const name of ['old', 'new']) outputFileSync(join(backups, `metadata-${name}.db.partial-1`), '');
    utimesSync(join(backups, 'metadata-old.db.partial-1'), 1, 1);
    const complete = (): string[] => readdirSync(backups).filter((name) => name.endsWith('Z.db'));
    const driver = await OverlayDriver.open(example.root, { backups: { every: 20, keep: 2 } });
    const seen = new Set<string>();
    await waitFor('four backups', () => {
      for (const name of complete()) seen.add(name);
      return seen.size >= 4;
    });
    await driver.close();
    const kept = complete();
    expect(kept.length).toBeGreaterThanOrEqual(2);
    expect(kept.length).toBeLessThanOrEqual(3);
    const partial = readdirSync(backups).filter((name) => name.includes('partial'));
    expect(partial).toEqual(['metadata-new.db.partial-1']);
    expect(mustRun(join(backups, kept[0] ?? ''), 'select count(*) from snapshot;\n')).toBe('6\n');
    expect((await checkStore(example.root)).status).toBe('clean');
  });

  test('a backup from the future delays none, and goes once there are newer ones', async ({ example }) => {
    const backups = example.at('backups');
    const future = join(backups, 'metadata-20990101T000000000Z.db');
    {
      await using driver = await OverlayDriver.open(example.root, { backups: false });
      mkdirSync(backups);
      await driver.backup(future);
      await driver.prepare('later');
    }
    utimesSync(future, 4070908800, 4070908800);
    const driver = await OverlayDriver.open(example.root, { backups: { every: 20, keep: 1 } });
    await waitFor('the backup from the future to be pruned', () => !existsSync(future));
    await driver.close();
    expect(readdirSync(backups).filter((name) => name.endsWith('Z.db'))).toHaveLength(1);
  });

  test('open() rejects backup settings that are out of range or of a wrong type', async ({ root }) => {
    const open = (backups: unknown): Promise<unknown> =>
      OverlayDriver.open(root, { backups: backups as false });
    await expect(open({ every: 0 })).rejects.toMatchObject({ code: 'INVALID_ARGUMENT' });
    await expect(open({ keep: 1.5 })).rejects.toMatchObject({ code: 'INVALID_ARGUMENT' });
    await expect(open({ keep: '2' })).rejects.toThrow(TypeError);
    await expect(open(7)).rejects.toThrow(TypeError);
  });
});
