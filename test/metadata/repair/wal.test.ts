import { copyFileSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import BetterSqlite3 from 'better-sqlite3';
import { describe, expect } from 'vitest';
import { findWalDamage } from '../../../src/metadata/repair/wal.ts';
import { test as base } from '../../support/fixtures.ts';

const HEADER = 32;
const FRAME = 24 + 4096;
const FRAMES = 6;

/** A copy of a write-ahead log of six transactions with a frame each, which a test may change. */
interface Log {
  readonly file: string;
  readonly bytes: Buffer;
  /** Writes the log as `bytes` has it. @returns what is wrong with it */
  readonly damage: () => string | undefined;
}

const test = base.extend<{ log: Log }>({
  log: async ({ place }, use) => {
    const database = join(place, 'test.db');
    const db = new BetterSqlite3(database);
    db.pragma('journal_mode = wal');
    db.pragma('wal_autocheckpoint = 0');
    db.exec('create table t (x)');
    db.pragma('wal_checkpoint(truncate)');
    for (let number = 0; number < FRAMES; number += 1) db.exec(`insert into t values (${number})`);
    const file = join(place, 'log');
    copyFileSync(`${database}-wal`, file);
    db.close();
    const bytes = readFileSync(file);
    expect(bytes.length).toBe(HEADER + FRAMES * FRAME);
    await use({
      file,
      bytes,
      damage() {
        writeFileSync(file, bytes);
        return findWalDamage(file);
      },
    });
  },
});

describe('findWalDamage()', () => {
  test('an intact log, and an empty one, have no damage', ({ log: { file } }) => {
    expect(findWalDamage(file)).toBeUndefined();
    writeFileSync(file, '');
    expect(findWalDamage(file)).toBeUndefined();
  });

  test('a log that ends in the middle of a write has no damage', ({ log: { file, bytes } }) => {
    for (const length of [HEADER, HEADER + 1, HEADER + 24, HEADER + FRAME, HEADER + 2 * FRAME - 1]) {
      writeFileSync(file, bytes.subarray(0, length));
      expect(findWalDamage(file), `${length} bytes`).toBeUndefined();
    }
  });

  test('a last frame that was not written as a whole is no damage', ({ log: { bytes, damage } }) => {
    bytes.fill(0, HEADER + (FRAMES - 1) * FRAME + 500);
    expect(damage()).toBeUndefined();
  });

  test('a changed byte in any part of a frame is damage if frames of the same log follow', ({
    log: { bytes, damage },
  }) => {
    const frame = HEADER + 2 * FRAME;
    // The page number, the size of the database, a salt, the checksum, and the first and the last byte of the page.
    for (const offset of [3, 7, 8, 16, 24, FRAME - 1]) {
      const before = bytes[frame + offset] ?? 0;
      bytes[frame + offset] = before ^ 1;
      expect(damage(), `byte ${offset}`).toBe(
        'frame 3 cannot be read, and frame 4 after it is of the same log',
      );
      bytes[frame + offset] = before;
    }
    expect(damage()).toBeUndefined();
  });

  test('a damaged header is damage', ({ log: { file, bytes, damage } }) => {
    bytes[0] = 0;
    expect(damage()).toBe('it does not begin like a write-ahead log');
    bytes[0] = 0x37;
    bytes[12] = (bytes[12] ?? 0) ^ 1;
    expect(damage()).toBe('the checksum of its header is wrong');
    writeFileSync(file, bytes.subarray(0, 31));
    expect(findWalDamage(file)).toBe('it ends within its header');
  });

  test('frames of an older log that the current one has not overwritten yet are no damage', ({ place }) => {
    const database = join(place, 'test.db');
    const db = new BetterSqlite3(database);
    db.pragma('journal_mode = wal');
    db.pragma('wal_autocheckpoint = 0');
    db.exec('create table t (x)');
    for (let number = 0; number < FRAMES; number += 1) db.exec(`insert into t values (${number})`);
    const before = readFileSync(`${database}-wal`);
    db.pragma('wal_checkpoint(restart)');
    db.exec('insert into t values (7)');
    const after = readFileSync(`${database}-wal`);
    db.close();
    // The new log is at the beginning of the same file.
    expect(after.length).toBe(before.length);
    expect(after.subarray(HEADER + FRAME).equals(before.subarray(HEADER + FRAME))).toBe(true);
    expect(after.subarray(0, HEADER).equals(before.subarray(0, HEADER))).toBe(false);
    const file = join(place, 'log');
    writeFileSync(file, after);
    expect(findWalDamage(file)).toBeUndefined();
  });
});
