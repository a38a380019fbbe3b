import { join } from 'node:path';
import BetterSqlite3, { type Database } from 'better-sqlite3';
import { describe, expect } from 'vitest';
import { retryWhileBusy } from '../../src/metadata/busy.ts';
import { test as base } from '../support/fixtures.ts';

/** Two connections to a database, the first of which holds the write lock. */
const test = base.extend<{ connections: { holder: Database; waiter: Database } }>({
  connections: async ({ place }, use) => {
    const file = join(place, 'test.db');
    const holder = new BetterSqlite3(file);
    holder.exec('pragma journal_mode = wal; create table t (x); begin immediate');
    const waiter = new BetterSqlite3(file, { timeout: 0 });
    await use({ holder, waiter });
    holder.close();
    waiter.close();
  },
});

describe('retryWhileBusy()', () => {
  test('retryWhileBusy() leaves the event loop free, and succeeds once the lock is released', async ({
    connections: { holder, waiter },
  }) => {
    let attempts = 0;
    const insert = (): number => {
      attempts += 1;
      // Released by the same thread: if the wait kept the event loop busy, it would never end.
      if (attempts === 3) setImmediate(() => holder.exec('commit'));
      return waiter.prepare('insert into t values (1)').run().changes;
    };
    expect(await retryWhileBusy(insert, 600_000, 'inserting')).toBe(1);
    expect(attempts).toBeGreaterThan(3);
  });

  test('retryWhileBusy() fails with UNAVAILABLE and a hint once its time is over', async ({
    connections: { waiter },
  }) => {
    const insert = (): unknown => waiter.prepare('insert into t values (1)').run();
    await expect(retryWhileBusy(insert, 40, 'inserting')).rejects.toMatchObject({
      code: 'UNAVAILABLE',
      message: 'inserting: the database was locked for 40 ms',
      hint: expect.stringContaining('busyTimeout') as string,
      cause: { code: 'SQLITE_BUSY' },
    });
  });

  test('retryWhileBusy() tries once if it may not wait at all', async ({ connections: { waiter } }) => {
    let attempts = 0;
    const insert = (): void => {
      attempts += 1;
      waiter.prepare('insert into t values (1)').run();
    };
    await expect(retryWhileBusy(insert, 0, 'inserting')).rejects.toMatchObject({ code: 'UNAVAILABLE' });
    expect(attempts).toBe(1);
  });

  test('retryWhileBusy() does not repeat what fails for another reason', async ({
    connections: { waiter },
  }) => {
    let attempts = 0;
    const select = (): void => {
      attempts += 1;
      waiter.exec('select * from missing');
    };
    await expect(retryWhileBusy(select, 600_000, 'selecting')).rejects.toMatchObject({
      code: 'SQLITE_ERROR',
    });
    expect(attempts).toBe(1);
  });
});
