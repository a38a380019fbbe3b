import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import BetterSqlite3, { type Database } from 'better-sqlite3';
import { describe, expect } from 'vitest';
import { openDatabase } from '../../src/metadata/open.ts';
import { SpareSpace } from '../../src/metadata/spare-space.ts';
import { Transactor } from '../../src/metadata/transactor.ts';
import { WriteQueue } from '../../src/metadata/write-queue.ts';
import { makeDisk } from '../support/disk.ts';
import { test as base } from '../support/fixtures.ts';
import { needs } from '../support/needs.ts';

/** A queue of writes to the table `t`. */
interface Subject {
  readonly db: Database;
  readonly queue: WriteQueue;
  /** The number of writes in each transaction so far. */
  readonly transactions: number[];
  readonly insert: (value: string) => string;
  readonly values: () => string[];
}

async function openSubject(file: string, busyTimeout: number): Promise<Subject> {
  const db = await openDatabase(file, { readonly: false, busyTimeout: 1000 });
  db.exec('create table t (x text not null)');
  const transactions: number[] = [];
  const queue = new WriteQueue(db, new Transactor(db), {
    busyTimeout,
    spareSpace: new SpareSpace(`${file}-reserve`),
    onTransaction: (writes) => transactions.push(writes),
  });
  return {
    db,
    queue,
    transactions,
    insert(value) {
      db.prepare('insert into t values (?)').run(value);
      return `inserted ${value.slice(0, 10)}`;
    },
    values: () => db.prepare<[], string>('select x from t order by rowid').pluck().all(),
  };
}

const test = base.extend<{ busyTimeout: number; subject: Subject }>({
  busyTimeout: 600_000,
  subject: async ({ databaseFile, busyTimeout }, use) => {
    const subject = await openSubject(databaseFile, busyTimeout);
    await use(subject);
    subject.db.close();
  },
});

describe('WriteQueue', () => {
  test('writes of the same turn of the event loop share one transaction', async ({ subject }) => {
    const { queue, insert, transactions, values } = subject;
    const results = await Promise.all(['a', 'b', 'c'].map((value) => queue.write(() => insert(value))));
    expect(results).toEqual(['inserted a', 'inserted b', 'inserted c']);
    expect(values()).toEqual(['a', 'b', 'c']);
    expect(transactions).toEqual([3]);
    await queue.write(() => insert('d'));
    expect(transactions).toEqual([3, 1]);
  });

  test('a write that throws fails alone, and nothing of it stays', async ({ subject }) => {
    const { queue, insert, transactions, values } = subject;
    const error = new Error('changed my mind');
    const outcomes = await Promise.allSettled([
      queue.write(() => insert('a')),
      queue.write(() => {
        insert('b');
        throw error;
      }),
      queue.write(() => insert('c')),
    ]);
    expect(outcomes).toEqual([
      { status: 'fulfilled', value: 'inserted a' },
      { status: 'rejected', reason: error },
      { status: 'fulfilled', value: 'inserted c' },
    ]);
    expect(values()).toEqual(['a', 'c']);
    expect(transactions).toEqual([3]);
  });

  test('a write that has been aborted is never begun', async ({ subject }) => {
    const { queue, insert, values } = subject;
    const stop = new AbortController();
    let begun = false;
    const aborted = queue.write(() => (begun = true), { signal: stop.signal });
    const other = queue.write(() => insert('a'));
    stop.abort(new Error('not any more'));
    await expect(aborted).rejects.toThrow('not any more');
    await other;
    expect(begun).toBe(false);
    expect(values()).toEqual(['a']);
  });

  test('a transaction that has taken long leaves the other writes to the next one', async ({ subject }) => {
    const { queue, insert, transactions, values } = subject;
    const slowly = (value: string): string => {
      const end = performance.now() + 30;
      while (performance.now() < end);
      return insert(value);
    };
    await Promise.all(['a', 'b', 'c'].map((value) => queue.write(() => slowly(value))));
    expect(transactions).toEqual([1, 1, 1]);
    expect(values()).toEqual(['a', 'b', 'c']);
  });

  test('writes wait until another connection has released the lock', async ({ subject, databaseFile }) => {
    const { queue, insert, transactions, values } = subject;
    const other = new BetterSqlite3(databaseFile);
    other.exec('begin immediate');
    const waiting = [queue.write(() => insert('a')), queue.write(() => insert('b'))];
    setTimeout(() => {
      other.exec(`insert into t values ('theirs'); commit`);
      other.close();
    }, 50);
    await Promise.all(waiting);
    expect(values()).toEqual(['theirs', 'a', 'b']);
    expect(transactions).toEqual([2]);
  });

  test('an error of onTransaction is a warning, and fails no write', async ({
    databaseFile,
    busyTimeout,
  }) => {
    const db = await openDatabase(databaseFile, { readonly: false, busyTimeout });
    const warnings: string[] = [];
    const onWarning = ({ message }: Error): unknown => warnings.push(message);
    process.on('warning', onWarning);
    try {
      const queue = new WriteQueue(db, new Transactor(db), {
        busyTimeout,
        spareSpace: new SpareSpace(`${databaseFile}-reserve`),
        onTransaction() {
          throw new Error('too many');
        },
      });
      // The first takes longer than a transaction goes on for, so that the others are put back into the queue.
      const slowly = (): string => {
        const until = performance.now() + 50;
        while (performance.now() < until);
        return 'slowly';
      };
      await expect(Promise.all([queue.write(slowly), queue.write(() => 'next')])).resolves.toEqual([
        'slowly',
        'next',
      ]);
      await new Promise((resolve) => setImmediate(resolve));
      expect(warnings).toContain('onTransaction has thrown: Error: too many');
    } finally {
      process.off('warning', onWarning);
      db.close();
    }
  });

  test('idle() waits for writes that are queued meanwhile', async ({ subject }) => {
    const { queue, insert, values } = subject;
    void queue.write(() => insert('a')).then(() => queue.write(() => insert('b')));
    await queue.idle();
    expect(values()).toEqual(['a', 'b']);
    await queue.idle();
  });
});

describe('WriteQueue with little patience', () => {
  test.override({ busyTimeout: 40 });

  test('all waiting writes fail with UNAVAILABLE if the database stays locked, and later ones succeed', async ({
    subject,
    databaseFile,
  }) => {
    const { queue, insert, values } = subject;
    const other = new BetterSqlite3(databaseFile);
    other.exec('begin immediate');
    const outcomes = await Promise.allSettled([
      queue.write(() => insert('a')),
      queue.write(() => insert('b')),
    ]);
    for (const outcome of outcomes) {
      expect(outcome).toMatchObject({ status: 'rejected', reason: { code: 'UNAVAILABLE' } });
    }
    other.close();
    await queue.write(() => insert('c'));
    expect(values()).toEqual(['c']);
  });
});

const lacking = needs('root');

describe.skipIf(lacking)(`WriteQueue on a full disk${lacking}`, () => {
  test('on a full disk only what frees space gets the spare space, and a write that may run once is not repeated', async ({
    undo,
  }) => {
    const disk = makeDisk('tmpfs', 4);
    undo(() => disk.remove());
    const { db, queue, insert, values } = await openSubject(join(disk.root, 'metadata.db'), 1000);
    undo(() => db.close());
    await queue.write(() => insert('old'));
    const filler = join(disk.path, 'filler');
    expect(() => {
      for (;;) writeFileSync(filler, Buffer.alloc(4096), { flag: 'a' });
    }).toThrow('ENOSPC');
    let runs = 0;
    // Each is too large by itself, whether or not they share a transaction.
    const large = 'large '.repeat(100_000);
    const outcomes = await Promise.allSettled([
      queue.write(() => insert(large)),
      queue.write(() => insert(`once ${(runs += 1)} ${large}`), { once: true }),
      queue.write(() => db.prepare('delete from t').run().changes, { frees: true }),
    ]);
    expect(outcomes).toMatchObject([
      { status: 'rejected', reason: { code: 'SQLITE_FULL' } },
      { status: 'rejected', reason: { code: 'SQLITE_FULL' } },
      { status: 'fulfilled', value: 1 },
    ]);
    expect(runs).toBe(1);
    expect(values()).toEqual([]);
    writeFileSync(filler, '');
    await queue.write(() => insert('new'));
    expect(values()).toEqual(['new']);
  });
});
