import { defineTask, runInChild } from '../linux/child.ts';
import { SnapshotError } from '../errors.ts';
import {
  type Checked,
  boolean,
  checkOptions,
  milliseconds,
  optional,
  strings,
  toRoot,
  watchedOptions,
} from '../arguments.ts';
import type { Watched } from '../snapshot.ts';
import type { CheckInput } from './check.task.ts';
import type { CheckSettings } from './context.ts';
import type { CheckOptions, CheckProgress, Report } from '../report.ts';

/** Checks a store, in a child process. */
export const checkTask = defineTask<CheckInput, CheckProgress, Report>('check');

/**
 * Checks a store, whether or not a process has it open, and also one that cannot be opened any more. It changes
 * nothing unless `repair` is set, and follows no symbolic link out of the store. It runs in a process of its own,
 * which ends with this one, with `signal`, or when the check is done.
 *
 * @throws {TypeError} if an option is of a wrong type or unknown
 * @throws {SnapshotError} INVALID_ARGUMENT if an option has an impossible value, or contradicts another
 * @throws {SnapshotError} FAILED_PRECONDITION if there is no store in the root
 * @throws {SnapshotError} NOT_FOUND if a snapshot in `only` does not exist
 * @throws {SnapshotError} UNAVAILABLE if the database stays locked
 * @throws the reason of `signal`
 */
export async function checkStore(root: string, options: CheckOptions = {}): Promise<Report> {
  const path = toRoot(root);
  const { signal, onProgress, ...settings } = toSettings(options);
  const input: CheckInput = { root: path, settings };
  return runInChild(checkTask, input, { signal, onEvent: (progress) => onProgress?.(progress) });
}

function toSettings(given: CheckOptions): CheckSettings & Checked<Watched<CheckProgress>> {
  const checked = checkOptions(given, {
    quick: optional(boolean),
    contents: optional(boolean),
    only: optional(strings()),
    maxDuration: optional(milliseconds(Infinity)),
    olderThan: optional(milliseconds(Infinity)),
    repair: optional(boolean),
    dryRun: optional(boolean),
    ...watchedOptions<CheckProgress>(),
  });
  if (checked.quick === true && checked.contents === true) {
    throw new SnapshotError('INVALID_ARGUMENT', 'a quick check leaves out the layers, and so their contents');
  }
  if (checked.dryRun === true && checked.repair !== true) {
    throw new SnapshotError('INVALID_ARGUMENT', 'dryRun needs repair');
  }
  return checked;
}
