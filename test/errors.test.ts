import { closeSync, mkdirSync, openSync, readFileSync, symlinkSync, writeFileSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import BetterSqlite3, { type Database, type Options } from 'better-sqlite3';
import { describe, expect } from 'vitest';
import { SnapshotError, isBusy, isFull, isNotADatabase, toSnapshotError, wrongType } from '../src/errors.ts';
import { test as base } from './support/fixtures.ts';

/** What `body` throws. */
function thrownBy(body: () => unknown): unknown {
  try {
    body();
  } catch (error) {
    return error;
  }
  throw new Error('nothing was thrown');
}

interface DatabaseFixtures {
  /** The path of a database with a table. */
  file: string;
  /** Opens a database, which is closed after the test. */
  open: (file: string, options?: Options) => Database;
}

const test = base.extend<DatabaseFixtures>({
  file: async ({ place }, use) => {
    const file = join(place, 'test.db');
    const db = new BetterSqlite3(file);
    db.exec('create table t (x unique)');
    db.close();
    await use(file);
  },
  open: async ({ place: _afterwards }, use) => {
    const opened: Database[] = [];
    await use((file, options) => {
      const db = new BetterSqlite3(file, { timeout: 0, ...options });
      opened.push(db);
      return db;
    });
    for (const db of opened) db.close();
  },
});

test('no message or hint holds characters that control a terminal, whoever wrote them', () => {
  const name = 'm\u001B]0;x\u0007\u001B[2J\u202E\u009B\n';
  const shown = String.raw`m\u001b]0;x\u0007\u001b[2J\u202e\u009b\n`;
  const missing = thrownBy(() => readFileSync(`/nowhere/${name}`));
  expect(toSnapshotError(missing, 'reading').message).toBe(
    `reading: ENOENT: no such file or directory, open '/nowhere/${shown}'`,
  );
  const error = new SnapshotError('INTERNAL', `about ${name}`, { hint: `remove ${name}`, cause: missing });
  expect(error).toMatchObject({ message: `about ${shown}`, hint: `remove ${shown}`, cause: missing });
  expect(error.stack).toContain(`about ${shown}\n`);
});

describe('errors of SQLite', () => {
  test('a locked database is UNAVAILABLE, and trying again can help', ({ file, open }) => {
    const first = open(file);
    const second = open(file);
    first.exec('begin immediate');
    const error = thrownBy(() => second.exec('begin immediate'));
    expect(toSnapshotError(error, 'testing')).toMatchObject({
      name: 'SnapshotError',
      code: 'UNAVAILABLE',
      message: 'testing: the database is locked (database is locked)',
      cause: error,
    });
    expect(isBusy(error)).toBe(true);
    expect(isBusy(toSnapshotError(error, 'testing'))).toBe(true);
    expect(isFull(error)).toBe(false);
  });

  test('a full database is RESOURCE_EXHAUSTED, with a hint', ({ file, open }) => {
    const db = open(file);
    db.pragma('max_page_count = 3');
    const error = thrownBy(() => db.prepare('insert into t values (zeroblob(100000))').run());
    expect(toSnapshotError(error, 'testing')).toMatchObject({
      code: 'RESOURCE_EXHAUSTED',
      hint: expect.stringContaining('free some disk space') as string,
    });
    expect(isFull(error)).toBe(true);
    expect(isFull(toSnapshotError(error, 'testing'))).toBe(true);
    expect(isBusy(error)).toBe(false);
  });

  test('a damaged database is DATA_LOSS', ({ file, open }) => {
    const bytes = readFileSync(file);
    bytes.fill(0xff, 4096);
    writeFileSync(file, bytes);
    const damaged = open(file);
    const error = thrownBy(() => damaged.prepare('select * from t').all());
    expect(toSnapshotError(error, 'testing')).toMatchObject({ code: 'DATA_LOSS' });
  });

  test('a file that is not a database is DATA_LOSS', ({ file, open }) => {
    writeFileSync(file, 'text '.repeat(1000));
    const db = open(file);
    const error = thrownBy(() => db.pragma('user_version'));
    expect(toSnapshotError(error, 'testing')).toMatchObject({ code: 'DATA_LOSS' });
    expect(isNotADatabase(error)).toBe(true);
  });

  test('a broken constraint, a read-only database and one that cannot be opened are FAILED_PRECONDITION', ({
    file,
    open,
    place,
  }) => {
    const db = open(file);
    db.exec('insert into t values (1)');
    const reader = open(file, { readonly: true });
    for (const body of [
      () => db.exec('insert into t values (1)'),
      () => reader.exec('insert into t values (2)'),
      () => open(place),
    ]) {
      expect(toSnapshotError(thrownBy(body), 'testing')).toMatchObject({ code: 'FAILED_PRECONDITION' });
    }
  });

  test('any other error of SQLite is INTERNAL and named', ({ file, open }) => {
    const db = open(file);
    const error = thrownBy(() => db.exec('select'));
    expect(toSnapshotError(error, 'testing')).toMatchObject({
      code: 'INTERNAL',
      message: expect.stringMatching(/^testing: SQLITE_ERROR \(/) as string,
    });
  });
});

describe('errors of the operating system', () => {
  test('a missing file, a file for a directory and a loop of links are FAILED_PRECONDITION', ({ place }) => {
    writeFileSync(join(place, 'file'), '');
    symlinkSync('loop', join(place, 'loop'));
    for (const path of ['missing', 'file/below', 'loop']) {
      const error = thrownBy(() => readFileSync(join(place, path)));
      expect(toSnapshotError(error, 'testing'), path).toMatchObject({
        code: 'FAILED_PRECONDITION',
        message: `testing: ${(error as Error).message}`,
        cause: error,
      });
    }
  });

  test('a name that is too long is INVALID_ARGUMENT', ({ place }) => {
    const error = thrownBy(() => mkdirSync(join(place, 'x'.repeat(300))));
    expect(toSnapshotError(error, 'testing')).toMatchObject({ code: 'INVALID_ARGUMENT' });
  });

  test('a full disk is RESOURCE_EXHAUSTED', () => {
    const fd = openSync('/dev/full', 'w');
    const error = thrownBy(() => writeSync(fd, 'x'));
    closeSync(fd);
    expect(toSnapshotError(error, 'testing')).toMatchObject({ code: 'RESOURCE_EXHAUSTED' });
  });

  test('an error that has no translation is INTERNAL', ({ place }) => {
    const error = thrownBy(() => readFileSync(place));
    expect(error).toMatchObject({ code: 'EISDIR' });
    expect(toSnapshotError(error, 'testing')).toMatchObject({ code: 'INTERNAL' });
  });
});

describe('other errors', () => {
  test.for([
    ['EMLINK', 'RESOURCE_EXHAUSTED'],
    ['EFBIG', 'RESOURCE_EXHAUSTED'],
    ['EAGAIN', 'RESOURCE_EXHAUSTED'],
    ['EIO', 'UNAVAILABLE'],
    ['EUCLEAN', 'DATA_LOSS'],
  ])('%s is %s', ([errno, code]) => {
    const error = Object.assign(new Error(`${errno}: no luck, link`), { code: errno, errno: -1 });
    expect(toSnapshotError(error, 'testing')).toMatchObject({ name: 'SnapshotError', code });
  });

  test('a value of a wrong type is a TypeError with a code', () => {
    expect(wrongType('key must be a string')).toBeInstanceOf(TypeError);
    expect(wrongType('key must be a string')).toMatchObject({ name: 'TypeError', code: 'INVALID_ARGUMENT' });
  });

  test('a SnapshotError and a TypeError stay what they are', () => {
    const snapshotError = new SnapshotError('NOT_FOUND', 'there is no snapshot "a"', { hint: 'look again' });
    const typeError = new TypeError('key must be a string');
    expect(toSnapshotError(snapshotError, 'testing')).toBe(snapshotError);
    expect(toSnapshotError(typeError, 'testing')).toBe(typeError);
  });

  test('anything else that is thrown is INTERNAL', () => {
    expect(toSnapshotError('text', 'testing')).toMatchObject({
      code: 'INTERNAL',
      message: 'testing: text',
      cause: 'text',
    });
    expect(toSnapshotError(new RangeError('too far'), 'testing')).toMatchObject({
      code: 'INTERNAL',
      message: 'testing: too far',
    });
  });

  test('a SnapshotError has a cause only if it was given one', () => {
    expect('cause' in new SnapshotError('INTERNAL', 'text')).toBe(false);
    expect(new SnapshotError('INTERNAL', 'text', { cause: null }).cause).toBeNull();
    expect(String(new SnapshotError('NOT_FOUND', 'there is none'))).toBe('SnapshotError: there is none');
  });
});
