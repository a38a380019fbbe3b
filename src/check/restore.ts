import { resolve } from 'node:path';
import { defineTask, runInChild } from '../linux/child.ts';
import { SnapshotError } from '../errors.ts';
import { boolean, checkOptions, optional, string, toRoot, withDefault } from '../arguments.ts';
import { checkStore } from './check.ts';
import type { RestoreInput, Restored } from './restore.task.ts';
import type { Report } from '../report.ts';

/** A restoration, as it runs in a child process. */
export const restoreTask = defineTask<RestoreInput, never, Restored>('restore');

/** What a store's database is to be restored from. */
export interface RestoreOptions {
  /** A backup; the newest that was made by itself unless given. */
  from?: string;
  /** Use no backup, but what can be read of the database that is there. */
  salvage?: boolean;
}

/** What came of a restoration, and what a check of the store finds after it. */
export interface RestoreReport extends Restored {
  /** Without a look into the layers: rows whose directories are gone, and directories that no row knows of. */
  readonly check: Report;
}

/**
 * Puts a new database in the place of one that is lost or damaged: a backup, or what can be read of the damaged one.
 * Nothing is deleted: the old one goes to `lost+found/`, the removal journal is emptied into the report, and no id is
 * handed out again. Nobody may have the store open.
 *
 * @throws {TypeError} if an option is of a wrong type or unknown
 * @throws {SnapshotError} INVALID_ARGUMENT if both `from` and `salvage` are given
 * @throws {SnapshotError} FAILED_PRECONDITION if there is no root or no backup, or someone has the store open
 * @throws {SnapshotError} DATA_LOSS if the backup is damaged
 */
export async function restoreStore(root: string, options: RestoreOptions = {}): Promise<RestoreReport> {
  const path = toRoot(root);
  const { from, salvage } = checkOptions(options, {
    from: optional(string),
    salvage: withDefault(boolean, false),
  });
  if (from !== undefined && salvage) {
    throw new SnapshotError('INVALID_ARGUMENT', 'a store is restored from a backup, or salvaged, not both');
  }
  const input: RestoreInput = {
    root: path,
    from: from === undefined ? undefined : resolve(from),
    salvage,
  };
  const restored = await runInChild(restoreTask, input);
  return { ...restored, check: await checkStore(root, { quick: true }) };
}
