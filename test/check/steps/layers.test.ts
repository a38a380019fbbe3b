import { chmodSync, mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect } from 'vitest';
import { OverlayDriver } from '../../../src/index.ts';
import { breakRules } from '../../support/damage.ts';
import { test } from '../../support/fixtures.ts';
import { layerOf } from '../../support/layers.ts';
import { needs } from '../../support/needs.ts';
import { queryShell } from '../../support/shell.ts';
import { sh } from '../../support/tree.ts';

const lacking = needs('root', 'sqlite3');

describe.skipIf(lacking)(`checks of layers${lacking}`, () => {
  test('check counts the inodes of committed layers, and reads no other layer', async ({
    example,
    examiner,
  }) => {
    const { root, ids, at } = example;
    // An active layer may change at any time, and has no seal.
    for (let number = 0; number < 50; number += 1) {
      writeFileSync(at('snapshots', ids.work, 'fs', `file ${number}`), '');
    }
    const [sum] = queryShell<{ inodes: number }>(
      at('metadata.db'),
      'select sum(inodes) as inodes from snapshot',
    );
    const { findings, steps } = await examiner.check(root, { only: ['layers'] });
    expect(findings).toEqual([]);
    expect(steps.find(({ step }) => step === 'layers')?.checked).toBe(sum?.inodes);
  });

  test('check of a layer without a seal finds only that the number of inodes has changed', async ({
    example,
    examiner,
  }) => {
    const { root, ids, at } = example;
    breakRules(root, `update snapshot set seal = null where id = ${ids.base};`);
    const check = async (): Promise<string[]> =>
      (await examiner.check(root, { only: ['layers'] })).findings.map(({ code }) => code);
    expect(await check()).toEqual(['seal-unknown']);
    writeFileSync(at('snapshots', ids.base, 'fs', 'etc', 'hosts'), '127.0.0.2 localhost\n');
    expect(await check()).toEqual(['seal-unknown']);
    mkdirSync(at('snapshots', ids.base, 'fs', 'added'));
    expect(await check()).toEqual(['usage-differs']);
  });

  test('check reports how many inodes a damaged layer has and should have', async ({ example, examiner }) => {
    const { root, ids, at } = example;
    writeFileSync(at('snapshots', ids.app, 'fs', 'added'), '');
    const [row] = queryShell<{ inodes: number }>(
      at('metadata.db'),
      `select inodes from snapshot where id = ${ids.app}`,
    );
    const inodes = row?.inodes ?? 0;
    const { findings } = await examiner.check(root);
    expect(findings).toMatchObject([
      { code: 'seal-broken', snapshot: 'app', id: ids.app, path: at('snapshots', ids.app, 'fs') },
    ]);
    expect(findings[0]?.message).toMatch(new RegExp(`\\b${inodes + 1}\\b.*\\b${inodes}\\b`));
  });

  test('check says of a store that was copied with cp -r that the copy has lost the times', async ({
    example,
    examiner,
    place,
  }) => {
    const copy = join(place, 'copy');
    // As if the copy had been made a day after the commits.
    sh(`cp -r ${example.root} ${copy}; find copy/snapshots -exec touch -h -d tomorrow {} +`, place);
    const messages = async (): Promise<string[]> =>
      (await examiner.check(copy)).findings
        .filter(({ code }) => code === 'seal-broken')
        .map(({ message }) => message);
    expect(await messages()).not.toEqual([]);
    for (const message of await messages()) expect(message).toMatch(/probably a copy that lost the times/);
    rmSync(copy, { recursive: true });
    sh(`cp -a ${example.root} ${copy}`, place);
    expect(await messages()).toEqual([]);
  });

  test('check with contents says if only the metadata of a layer has changed', async ({ root, examiner }) => {
    {
      await using driver = await OverlayDriver.open(root, { seal: 'content', backups: false });
      await driver.prepare('work');
      writeFileSync(join(await layerOf(driver, 'work'), 'file'), 'text');
      await driver.commit('base', 'work');
      chmodSync(join(await layerOf(driver, 'base'), 'file'), 0o755);
    }
    const { findings } = await examiner.check(root, { contents: true });
    expect(findings).toMatchObject([
      {
        code: 'seal-broken',
        message: expect.stringContaining('its contents are as they were, but not all modes'),
      },
    ]);
  });
});
