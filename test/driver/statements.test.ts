import Database, { type Statement } from 'better-sqlite3';
import { expect } from 'vitest';
import { test } from '../support/fixtures.ts';

const db = new Database(':memory:');
const statement: Record<'run' | 'get' | 'all' | 'iterate', (...args: unknown[]) => unknown> =
  Object.getPrototypeOf(db.prepare('select 1'));
db.close();

/** The statements that are run meanwhile, in their order, on any connection of this process. */
async function statementsOf(body: () => Promise<unknown>): Promise<string[]> {
  const original = { ...statement, ...pick() };
  const seen: string[] = [];
  for (const method of ['run', 'get', 'all', 'iterate'] as const) {
    statement[method] = function note(this: Statement, ...args: unknown[]) {
      seen.push(this.source.trim());
      return Reflect.apply(original[method], this, args);
    };
  }
  try {
    await body();
  } finally {
    Object.assign(statement, original);
  }
  return seen;
}

function pick(): typeof statement {
  const { run, get, all, iterate } = statement;
  return { run, get, all, iterate };
}

/** Only what is run while the transaction is open. */
function within(statements: readonly string[]): string[] {
  return statements.slice(statements.indexOf('begin immediate'), statements.indexOf('commit') + 1);
}

function savepoints(statements: readonly string[]): number {
  return statements.filter((sql) => sql.startsWith('savepoint')).length;
}

const labels = { one: '1', two: '2' };

test('a prepare runs at most nine statements, one savepoint among them', async ({ driver }) => {
  await driver.prepare('base work');
  await driver.commit('base', 'base work');
  // The first to read the chain of its parent reads one more, and so does a view.
  await driver.prepare('first', 'base', { labels });
  for (const prepare of [
    () => driver.prepare('bare', 'base'),
    () => driver.prepare('labelled', 'base', { labels }),
    () => driver.view('view', 'base', { labels }),
    () => driver.prepare('on nothing', null, { labels }),
  ]) {
    const statements = await statementsOf(prepare);
    expect(statements.at(-1)).toBe('commit');
    expect(statements.length, statements.join('\n')).toBeLessThanOrEqual(9);
    expect(savepoints(statements)).toBe(1);
  }
});

test('a commit runs at most eleven statements in its transaction, one savepoint among them', async ({
  driver,
}) => {
  await driver.prepare('base work');
  await driver.commit('base', 'base work');
  for (const [key, parent] of [
    ['on nothing', null],
    ['on a base', 'base'],
  ] as const) {
    await driver.prepare(key, parent, { labels });
    const statements = within(await statementsOf(() => driver.commit(`${key}, committed`, key, { labels })));
    expect(statements.at(-1)).toBe('commit');
    expect(statements.length, statements.join('\n')).toBeLessThanOrEqual(11);
    expect(savepoints(statements)).toBe(1);
  }
});

test('a commit reads its name once before its transaction, and its key before and under its lock', async ({
  driver,
}) => {
  await driver.prepare('work');
  const statements = await statementsOf(() => driver.commit('base', 'work'));
  expect(statements.slice(0, statements.indexOf('begin immediate'))).toHaveLength(3);
});
