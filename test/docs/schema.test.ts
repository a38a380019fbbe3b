import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { OverlayDriver } from '../../src/index.ts';
import { hasShell, mustRun, queryShell, runShell } from '../support/shell.ts';
import { makeRoot } from '../support/store.ts';

const needs = hasShell ? '' : ' (needs sqlite3)';

const page = readFileSync(join(import.meta.dirname, '../../docs/schema.md'), 'utf8');
const queries = [...page.matchAll(/^(\S[^\n]*):\n\n```sql\n(.*?)```$/gms)].map(
  ([, question = '', sql = '']) => ({
    question,
    sql,
  }),
);

const made = makeRoot();
const file = join(made.root, 'metadata.db');
let driver: OverlayDriver;
const stop = new AbortController();
let writer: Promise<void>;

/** A store that has an answer to each of the questions, and is written to meanwhile. */
beforeAll(async () => {
  driver = await OverlayDriver.open(made.root, { asyncRemove: true, seal: 'content', backups: false });
  for (const [name, parent] of [
    ['base', null],
    ['middle', 'base'],
    ['top', 'middle'],
  ] as const) {
    await driver.prepare(`making ${name}`, parent);
    writeFileSync(`${(await driver.stat(`making ${name}`)).directory}/fs/file`, name);
    await driver.commit(name, `making ${name}`, { labels: { image: `debian:${name}` } });
  }
  await driver.prepare('workspace', 'top', { labels: { image: 'debian:workspace' } });
  await driver.prepare('fleeting', 'base', { volatile: true });
  for (let number = 0; number < 40; number += 1) await driver.view(`view ${number}`, 'top');
  mustRun(
    file,
    // As if they were made by others, earlier, and while they were in use.
    `insert into snapshot (id, name, kind, created_us, updated_us) values (4700, 'old', 'active', 1, 1);
     insert into snapshot (id, name, kind, created_us, updated_us, inodes, size, in_use)
     values (4701, 'used', 'committed', 1, 1, 1, 4096, 1);`,
  );
  writer = (async () => {
    for (let number = 0; !stop.signal.aborted; number += 1) {
      await driver.prepare(`k${number}`, 'top');
      if (number > 0) await driver.remove(`k${number - 1}`);
    }
  })();
});
afterAll(async () => {
  stop.abort();
  await writer;
  await driver.close();
  made.remove();
});

describe.skipIf(!hasShell)(`docs/schema.md${needs}`, () => {
  test('asks enough', () => {
    expect(queries.length).toBeGreaterThan(15);
    expect(page.match(/```sql/g)).toHaveLength(queries.length);
  });

  for (const { question, sql } of queries) {
    test(`has the answer to: ${question}`, () => {
      const { out, errors } = runShell(file, `.mode box\n${sql}`);
      expect(errors).toEqual([]);
      // Three lines of it are the frame and the names of the columns.
      expect(out.split('\n').length).toBeGreaterThan(5);
    });
  }

  test('names every table, view, index, trigger and column', () => {
    const names = queryShell<{ name: string }>(
      file,
      `select name from sqlite_schema where name not like 'sqlite%'
       union
       select columns.name
         from (select name as relation from sqlite_schema where type in ('table', 'view') and name not like 'sqlite%')
         join pragma_table_info(relation) as columns`,
    ).map(({ name }) => name);
    expect(names.length).toBeGreaterThan(40);
    expect(names.filter((name) => !page.includes(`\`${name}\``))).toEqual([]);
  });

  test('quotes the words of every rule', () => {
    const words = queryShell<{ sql: string }>(
      file,
      `select sql from sqlite_schema where type = 'trigger'`,
    ).flatMap(({ sql }) =>
      [...sql.matchAll(/raise\(abort, '([^']*)'\)/g)].map(([, message = '']) => message),
    );
    expect(words.length).toBeGreaterThan(15);
    expect(words.filter((message) => !page.includes(`"${message}"`))).toEqual([]);
  });
});
