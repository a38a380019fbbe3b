import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect } from 'vitest';
import { checkStore } from '../../../src/index.ts';
import { currentBoot } from '../../../src/linux/boot.ts';
import { breakRules } from '../../support/damage.ts';
import { test } from '../../support/fixtures.ts';
import { needs } from '../../support/needs.ts';
import { startProcess } from '../../support/process.ts';

const lacking = needs('root', 'sqlite3');

describe.skipIf(lacking)(`checks for leftovers${lacking}`, () => {
  test('check takes no reservation for abandoned while a process still makes the copy', async ({
    driver,
    root,
    undo,
  }) => {
    await driver.prepare('k');
    const script = join(import.meta.dirname, '../../support/hold-checkpoint.mjs');
    const holder = await startProcess('holding', process.execPath, [script, root]);
    undo(() => holder.kill());
    expect(await checkStore(root)).toMatchObject({ status: 'clean', findings: [] });
    await holder.kill();
    expect(await checkStore(root, { only: ['leftovers'] })).toMatchObject({
      status: 'clean',
      findings: [{ code: 'reservation-abandoned', id: 2, path: join(root, 'snapshots/2'), repair: null }],
    });
  });

  test('check finds no snapshot that is younger than asked for, and no committed one', async ({
    example,
    examiner,
  }) => {
    const { root, ids } = example;
    const day = 24 * 60 * 60 * 1000;
    const us = (days: number): number => (Date.now() - days * day) * 1000;
    breakRules(
      root,
      `update snapshot set created_us = 1 where id = ${ids.base};
       update snapshot set created_us = ${us(2)} where id = ${ids.work};
       update snapshot set created_us = ${us(4)} where id = ${ids.reader};`,
    );
    const { findings } = await examiner.check(root, { only: ['leftovers'], olderThan: 3 * day });
    expect(findings.map(({ code, snapshot }) => [code, snapshot])).toEqual([['open-long', 'reader']]);
  });

  test('check reports a time that no calendar has as a number', async ({ example, examiner }) => {
    breakRules(example.root, `update snapshot set created_us = -9000000000000000000 where name = 'work';`);
    const { findings } = await examiner.check(example.root, { only: ['leftovers'], olderThan: 60_000 });
    expect(findings).toMatchObject([
      { code: 'open-long', message: '"work" has been open since -9000000000000000000 µs' },
    ]);
  });

  test('check believes a volatile snapshot that was mounted since the machine started', async ({
    example,
    examiner,
  }) => {
    const { root, ids, at } = example;
    mkdirSync(at('snapshots', ids.work, 'work', 'work', 'incompat', 'volatile'), { recursive: true });
    breakRules(root, `update snapshot set volatile_boot = '${currentBoot()}' where id = ${ids.work};`);
    expect((await examiner.check(root)).findings).toEqual([]);
  });
});
