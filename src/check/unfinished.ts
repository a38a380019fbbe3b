import { lstatSync, readdirSync, unlinkSync } from 'node:fs';
import { dirname, join } from 'node:path';
import type { Layout } from '../layers/layout.ts';
import { statPlain } from '../linux/plain-file.ts';
import { FILE_SUFFIXES } from '../metadata/database-files.ts';
import { Inspector } from '../metadata/repair/inspector.ts';
import { UnopenableError } from '../metadata/repair/open-unchanged.ts';
import { plausibleId } from '../metadata/repair/plausible-id.ts';

/** What is in the place of `metadata.db-restoring`. */
export type Unfinished = 'nothing' | 'a complete database' | 'something else';

/**
 * Looks at what an interrupted restoration has left. It gives the name to a complete database alone, whose rows may be
 * the only ones that are left. That is: one of this version with nothing in it that is not ours, intact, with an empty
 * removal journal, and with no log beside it. Anything else was put there by others.
 */
export function lookAtUnfinished({ restoring }: Layout, scratch: () => string): Unfinished {
  const isThere = (suffix: string): boolean =>
    lstatSync(`${restoring}${suffix}`, { throwIfNoEntry: false }) !== undefined;
  if (!isThere('')) return 'nothing';
  const alone = FILE_SUFFIXES.every((suffix) => suffix === '' || !isThere(suffix));
  if (!alone || statPlain(restoring) === undefined) return 'something else';
  try {
    const inspector = Inspector.open(restoring, scratch);
    try {
      return isComplete(inspector) ? 'a complete database' : 'something else';
    } finally {
      inspector.close();
    }
  } catch (error) {
    if (error instanceof UnopenableError) return 'something else';
    throw error;
  }
}

function isComplete(inspector: Inspector): boolean {
  if (inspector.outdated || inspector.schema().length > 0) return false;
  if (inspector.integrity({ quick: false }).length > 0 || inspector.removals().length > 0) return false;
  const highWater = inspector.highWater() ?? -1;
  let highest = 0;
  for (const { id } of inspector.snapshots()) highest = Math.max(highest, id);
  return highWater === highest || (highWater > highest && plausibleId(highWater) > 0);
}

/** The names of the files with which a restoration works until its database is complete. */
const UNFINISHED = /^metadata\.db-restore-\d+(?:\.partial-\d+)?(?:-wal|-shm|-journal)?$/;

/** Removes what restorations have left that were killed while they made a new database. Call it with the store's lock. */
export function removeUnfinished({ database }: Layout): void {
  const directory = dirname(database);
  for (const name of readdirSync(directory)) {
    const path = join(directory, name);
    if (UNFINISHED.test(name) && statPlain(path) !== undefined) unlinkSync(path);
  }
}
