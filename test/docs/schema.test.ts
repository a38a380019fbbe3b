import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect } from 'vitest';
import { OverlayDriver } from '../../src/index.ts';
import { test as base } from '../support/fixtures.ts';
import { needs } from '../support/needs.ts';
import { mustRun, queryShell, runShell } from '../support/shell.ts';

const lacking = needs('sqlite3');

const page = readFileSync(join(import.meta.dirname, '../../docs/schema.md'), 'utf8');
const queries = [...page.matchAll(/^(\S[^\n]*):\n\n```sql\n(.*?)```$/gms)].map(
  ([, question = '', sql = '']) => ({
    question,
    sql,
  }),
);

const test = base.extend<{
  $file: {
    /** The database of a store that has an answer to each of the questions, and is written to meanwhile. */
    database: string;
  };
}>({
  database: [
    async ({ sharedPlace }, use) => {
      const driver = await OverlayDriver.open(sharedPlace, {
        asyncRemove: true,
        seal: 'content',
        backups: false,
      });
      const database = join(sharedPlace, 'metadata.db');
      await fill(driver, database);
      const stop = new AbortController();
      const writing = keepWriting(driver, stop.signal);
      await use(database);
      stop.abort();
      await writing;
      await driver.close();
    },
    { scope: 'file' },
  ],
});

async function fill(driver: OverlayDriver, database: string): Promise<void> {
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
    database,
    // As if they were made by others, earlier, and while they were in use.
    `insert into snapshot (id, name, kind, created_us, updated_us) values (4700, 'old', 'active', 1, 1);
     insert into snapshot (id, name, kind, created_us, updated_us, inodes, size, in_use)
     values (4701, 'used', 'committed', 1, 1, 1, 4096, 1);`,
  );
}

async function keepWriting(driver: OverlayDriver, signal: AbortSignal): Promise<void> {
  for (let number = 0; !signal.aborted; number += 1) {
    await driver.prepare(`k${number}`, 'top');
    if (number > 0) await driver.remove(`k${number - 1}`);
  }
}

describe.skipIf(lacking)(`docs/schema.md${lacking}`, () => {
  test('docs/schema.md asks more than 15 questions, each with a query', () => {
    expect(queries.length).toBeGreaterThan(15);
    expect(page.match(/```sql/g)).toHaveLength(queries.length);
  });

  test.for(queries)('the query in docs/schema.md finds something: $question', ({ sql }, { database }) => {
    const { out, errors } = runShell(database, `.mode box\n${sql}`);
    expect(errors).toEqual([]);
    // Three lines of it are the frame and the names of the columns.
    expect(out.split('\n').length).toBeGreaterThan(5);
  });

  test('docs/schema.md names every table, view, index, trigger and column', ({ database }) => {
    const names = queryShell<{ name: string }>(
      database,
      `select name from sqlite_schema where name not like 'sqlite%'
       union
       select columns.name
         from (select name as relation from sqlite_schema where type in ('table', 'view') and name not like 'sqlite%')
         join pragma_table_info(relation) as columns`,
    ).map(({ name }) => name);
    expect(names.length).toBeGreaterThan(40);
    expect(names.filter((name) => !page.includes(`\`${name}\``))).toEqual([]);
  });

  test('docs/schema.md quotes the message of every rule', ({ database }) => {
    const words = queryShell<{ sql: string }>(
      database,
      `select sql from sqlite_schema where type = 'trigger'`,
    ).flatMap(({ sql }) =>
      [...sql.matchAll(/raise\(abort, '([^']*)'\)/g)].map(([, message = '']) => message),
    );
    expect(words.length).toBeGreaterThan(15);
    expect(words.filter((message) => !page.includes(`"${message}"`))).toEqual([]);
  });
});
