import { execFileSync } from 'node:child_process';
import { existsSync, lstatSync, mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import BetterSqlite3 from 'better-sqlite3';
import { expect } from 'vitest';

/** Makes a directory that a store can be in. */
export function makeRoot(): { root: string; remove: () => void } {
  const root = mkdtempSync(join(tmpdir(), 'overlite-test-'));
  return { root, remove: () => rmSync(root, { recursive: true, force: true }) };
}

const MARK = '--- end of a query ---';

/** What the shell prints for each of several queries, asked all at once: starting it takes longer than they do. */
function ask(root: string, ...queries: string[]): string[][] {
  const script = queries.map((query) => `${query}; select '${MARK}';`).join('\n');
  const output = execFileSync('sqlite3', ['-readonly', join(root, 'metadata.db'), script], {
    encoding: 'utf8',
  });
  return output
    .split(`${MARK}\n`)
    .slice(0, -1)
    .map((text) => text.split('\n').slice(0, -1));
}

/** Checks that SQLite finds nothing wrong with a database. */
export function assertSound(file: string): void {
  const db = new BetterSqlite3(file, { readonly: true });
  try {
    expect(db.pragma('integrity_check', { simple: true })).toBe('ok');
    expect(db.pragma('foreign_key_check')).toEqual([]);
  } finally {
    db.close();
  }
}

/**
 * Checks through the shell that the database is whole, and that rows and directories agree.
 *
 * @returns the lines that the same shell prints for each of some more queries
 */
export function assertWhole(root: string, ...more: string[]): string[][] {
  const [integrity, foreignKeys, removals = [], snapshots = [], [highWaterText] = [], ...answers] = ask(
    root,
    'pragma integrity_check',
    'pragma foreign_key_check',
    'select id || part from removal',
    'select id, kind, parent_id is not null from snapshot',
    'select id from high_water',
    ...more,
  );
  expect(integrity).toEqual(['ok']);
  expect(foreignKeys).toEqual([]);
  const isDirectory = (...path: string[]): boolean =>
    lstatSync(join(root, 'snapshots', ...path), { throwIfNoEntry: false })?.isDirectory() === true;
  const journalled = new Set(removals);
  const known = new Set<string>();
  for (const row of snapshots) {
    const [id = '', kind, hasParent] = row.split('|');
    known.add(id);
    const needsNone = kind === 'view' && hasParent === '1';
    expect({ id, fs: isDirectory(id, 'fs') }).toEqual({ id, fs: !needsNone });
    if (kind === 'committed' && journalled.has(`${id}work`)) continue;
    expect({ id, work: isDirectory(id, 'work') }).toEqual({ id, work: kind === 'active' });
  }
  const directories = existsSync(join(root, 'snapshots')) ? readdirSync(join(root, 'snapshots')) : [];
  const stray = directories.filter((id) => !known.has(id) && !journalled.has(`${id}all`));
  // A crash may leave the empty skeleton of an id that was never given to anyone.
  const highWater = Number(highWaterText);
  const held = stray.filter(
    (id) =>
      Number(id) <= highWater ||
      readdirSync(join(root, 'snapshots', id)).some(
        (part) => readdirSync(join(root, 'snapshots', id, part)).length > 0,
      ),
  );
  expect(held).toEqual([]);
  return answers;
}
