import { join } from 'node:path';
import BetterSqlite3, { type Database } from 'better-sqlite3';
import { describe, expect } from 'vitest';
import { openDatabase } from '../../src/metadata/open.ts';
import { type Participant, Transactor } from '../../src/metadata/transactor.ts';
import { makeDisk } from '../support/disk.ts';
import { test as base } from '../support/fixtures.ts';
import { needs } from '../support/needs.ts';

/** Notes what a transactor asks of it, and whether somebody else could write then. */
class Witness implements Participant {
  readonly calls: string[] = [];
  /** What `mark` gives. */
  progress = 0;
  readonly #other: Database;

  constructor(file: string) {
    this.#other = new BetterSqlite3(file, { timeout: 0 });
  }

  check(): void {
    this.calls.push(`check${this.#lock()}`);
  }

  mark(): number {
    return this.progress;
  }

  undo(mark: number): void {
    this.calls.push(`undo to ${mark}${this.#lock()}`);
    this.progress = mark;
  }

  sync(): void {
    this.calls.push(`sync${this.#lock()}`);
  }

  end(): void {
    this.calls.push(`end${this.#lock()}`);
  }

  /** The names of the snapshots that another connection sees. */
  names(): string[] {
    return this.#other.prepare<[], string>('select name from snapshot order by id').pluck().all();
  }

  close(): void {
    this.#other.close();
  }

  #lock(): string {
    try {
      this.#other.exec('begin immediate; rollback');
      return '';
    } catch {
      return ', locked';
    }
  }
}

const test = base.extend<{ db: Database; witness: Witness; transactor: Transactor }>({
  db: async ({ databaseFile }, use) => {
    const db = await openDatabase(databaseFile, { readonly: false, busyTimeout: 1000 });
    await use(db);
    db.close();
  },
  witness: async ({ db, databaseFile }, use) => {
    // The database is there once `db` is.
    expect(db.open).toBe(true);
    const witness = new Witness(databaseFile);
    await use(witness);
    witness.close();
  },
  transactor: async ({ db, witness }, use) => {
    await use(new Transactor(db, witness));
  },
});

function insert(db: Database, name: string): void {
  db.prepare(
    `insert into snapshot (id, name, kind, created_us, updated_us)
     values ((select id + 1 from high_water), ?, 'active', 1, 1)`,
  ).run(name);
}

/** Breaks a foreign key that is looked at when the transaction is committed. */
function failAtCommit(db: Database): void {
  db.pragma('defer_foreign_keys = on');
  db.exec(`drop trigger if exists label_insert; insert into label values (4711, 'stray', 'label')`);
}

describe('Transactor', () => {
  test('run() syncs the participant under the lock before it commits, and ends it after', ({
    db,
    witness,
    transactor,
  }) => {
    const result = transactor.run(() => {
      insert(db, 'a');
      expect(witness.names()).toEqual([]);
      return 'done';
    });
    expect(result).toBe('done');
    expect(witness.calls).toEqual(['sync, locked', 'check, locked', 'end']);
    expect(witness.names()).toEqual(['a']);
    expect(transactor.rollbacks).toBe(0);
  });

  test('run() undoes the participant under the lock if the body throws', ({ db, witness, transactor }) => {
    witness.progress = 3;
    const error = new Error('changed my mind');
    const run = (): void =>
      transactor.run(() => {
        insert(db, 'a');
        witness.progress = 5;
        throw error;
      });
    expect(run).toThrow(error);
    expect(witness.calls).toEqual(['undo to 3, locked', 'end']);
    expect(witness.names()).toEqual([]);
    expect(transactor.rollbacks).toBe(1);
  });

  test('nested() takes back only what its own body did', ({ db, witness, transactor }) => {
    transactor.run(() => {
      insert(db, 'a');
      witness.progress = 1;
      expect(() =>
        transactor.nested(() => {
          insert(db, 'b');
          witness.progress = 2;
          transactor.nested(() => insert(db, 'c'));
          throw new Error('not this');
        }),
      ).toThrow('not this');
      insert(db, 'd');
    });
    expect(witness.names()).toEqual(['a', 'd']);
    expect(witness.calls).toEqual(['undo to 1, locked', 'sync, locked', 'check, locked', 'end']);
    expect(transactor.rollbacks).toBe(1);
  });

  test('a failed COMMIT has an unknown outcome, undoes nothing outside the database, and is settled by the next write', ({
    db,
    witness,
    transactor,
  }) => {
    const run = (): void =>
      transactor.run(() => {
        insert(db, 'a');
        failAtCommit(db);
      });
    expect(run).toThrow(
      expect.objectContaining({ code: 'UNAVAILABLE', message: expect.stringContaining('unknown') as string }),
    );
    expect(witness.calls).toEqual(['sync, locked', 'check, locked', 'end']);
    expect(transactor.open).toBe(false);
    const settlements = (): unknown => db.prepare('select settlements from high_water').pluck().get();
    const before = Number(settlements());
    transactor.run(() => insert(db, 'b'));
    expect(settlements()).toBe(before + 1);
    expect(witness.names()).toEqual(['b']);
    transactor.run(() => insert(db, 'c'));
    expect(settlements()).toBe(before + 1);
  });

  test('no write begins while the outcome of an earlier one cannot be settled', ({
    db,
    witness,
    transactor,
  }) => {
    expect(() => transactor.run(() => failAtCommit(db))).toThrow('unknown');
    db.exec(`create trigger refuse before update on high_water begin select raise(abort, 'no'); end`);
    let begun = false;
    expect(() => transactor.run(() => (begun = true))).toThrow(
      expect.objectContaining({
        code: 'UNAVAILABLE',
        message: 'the outcome of an earlier write is still unknown',
      }),
    );
    expect(begun).toBe(false);
    expect(transactor.open).toBe(false);
    db.exec('drop trigger refuse');
    transactor.run(() => insert(db, 'a'));
    expect(witness.names()).toEqual(['a']);
  });

  const lacking = needs('root');

  test.skipIf(lacking)(
    `a COMMIT that finds no room undoes the participant under a lock taken anew${lacking}`,
    async ({ undo }) => {
      const disk = makeDisk('tmpfs', 4);
      undo(() => disk.remove());
      const file = join(disk.root, 'metadata.db');
      const db = await openDatabase(file, { readonly: false, busyTimeout: 1000 });
      const witness = new Witness(file);
      const transactor = new Transactor(db, witness);
      const write = (): void =>
        transactor.run(() => {
          for (let row = 0; row < 2000; row += 1) insert(db, `${row} ${'x'.repeat(2000)}`);
        });
      expect(write).toThrow(expect.objectContaining({ code: 'SQLITE_FULL' }));
      expect(transactor.open).toBe(false);
      expect(witness.calls).toEqual(['sync, locked', 'check, locked', 'undo to 0, locked', 'end']);
      expect(witness.names()).toEqual([]);
      // Its outcome is known, so that nothing has to be settled.
      transactor.run(() => insert(db, 'small'));
      expect(witness.names()).toEqual(['small']);
      witness.close();
      db.close();
    },
  );
});
