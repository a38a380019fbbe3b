import { resolve } from 'node:path';
import { defineTask, runInChild } from '../linux/child.ts';
import { SnapshotError } from '../errors.ts';
import { boolean, checkOptions, optional, string, toRoot, withDefault } from '../arguments.ts';
import { checkStore } from './check.ts';
import type { RestoreInput, Restored } from './restore.task.ts';
import type { Report } from '../report.ts';

/** Restores the database of a store, in a child process. */
export const restoreTask = defineTask<RestoreInput, never, Restored>('restore');

/** What the database of a store is restored from. */
export interface RestoreOptions {
  /** A backup (default: the newest automatic one). */
  from?: string;
  /** Use what can be read of the present database, not a backup (default: false). */
  salvage?: boolean;
}

/** The result of a restoration, and of a check of the store after it. */
export interface RestoreReport extends Restored {
  /** A quick check: it finds rows without directories and directories without rows, and does not read layers. */
  readonly check: Report;
}

/**
 * Replaces a lost or damaged database: by a backup, or by what can be read of the damaged one. Nothing is deleted:
 * the old database goes to `lost+found/`, and the backup's removal journal to the report. No id is assigned twice. No
 * process may have the store open.
 *
 * @throws {TypeError} if an option is of a wrong type or unknown
 * @throws {SnapshotError} INVALID_ARGUMENT if both `from` and `salvage` are given
 * @throws {SnapshotError} FAILED_PRECONDITION if the root or the backup is missing, or a process has the store open
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
