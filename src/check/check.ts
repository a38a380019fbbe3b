import { resolve } from 'node:path';
import { defineTask, runInChild } from '../linux/child.ts';
import { SnapshotError } from '../errors.ts';
import { checkOptions, checkWatched, kindOf } from '../arguments.ts';
import { quote } from '../quote.ts';
import type { CheckInput } from './check.task.ts';
import type { Settings } from './context.ts';
import type { CheckOptions, CheckProgress, Report } from '../report.ts';

/** A check, as it runs in a child process. */
export const checkTask = defineTask<CheckInput, CheckProgress, Report>('check');

/**
 * Checks a store, whether someone has it open or not, and also one that cannot be opened any more. It changes nothing
 * unless it is to repair, follows no symbolic link out of the store, and runs in a process of its own, which ends with
 * this one, with `signal`, or when the check is done.
 *
 * @throws {TypeError} if an option is of a wrong type or unknown
 * @throws {SnapshotError} INVALID_ARGUMENT if one has a value that it cannot have
 * @throws {SnapshotError} FAILED_PRECONDITION if there is no store in the root
 * @throws {SnapshotError} NOT_FOUND if there is no snapshot of a name in `only`
 * @throws {SnapshotError} UNAVAILABLE if the database stays locked
 * @throws the reason of `signal`
 */
export async function checkStore(root: string, options: CheckOptions = {}): Promise<Report> {
  if (typeof root !== 'string') throw new TypeError(`the root must be a string, not ${kindOf(root)}`);
  if (root === '' || root.includes('\0')) {
    throw new SnapshotError('INVALID_ARGUMENT', `the root ${quote(root)} is not a path`);
  }
  const { signal, onProgress } = options;
  const input: CheckInput = { root: resolve(root), settings: toSettings(options) };
  return runInChild(checkTask, input, { signal, onEvent: (progress) => onProgress?.(progress) });
}

function toSettings(given: CheckOptions): Settings {
  const { signal, onProgress, ...settings } = checkOptions(given, [
    'quick',
    'contents',
    'only',
    'maxDuration',
    'olderThan',
    'repair',
    'dryRun',
    'signal',
    'onProgress',
  ]);
  checkWatched({ signal, onProgress });
  for (const option of ['quick', 'contents', 'repair', 'dryRun'] as const) {
    const value: unknown = settings[option];
    if (value !== undefined && typeof value !== 'boolean') {
      throw new TypeError(`${option} must be a boolean, not ${kindOf(value)}`);
    }
  }
  for (const option of ['maxDuration', 'olderThan'] as const) {
    const value: unknown = settings[option];
    if (value === undefined) continue;
    if (typeof value !== 'number') throw new TypeError(`${option} must be a number, not ${kindOf(value)}`);
    if (!(value >= 0)) {
      throw new SnapshotError('INVALID_ARGUMENT', `${option} is not a number of milliseconds: ${value}`);
    }
  }
  const only: unknown = settings.only;
  if (only !== undefined && !(Array.isArray(only) && only.every((word) => typeof word === 'string'))) {
    throw new TypeError('only must be an array of strings');
  }
  if (settings.quick === true && settings.contents === true) {
    throw new SnapshotError('INVALID_ARGUMENT', 'a quick check leaves out the layers, and so their contents');
  }
  if (settings.dryRun === true && settings.repair !== true) {
    throw new SnapshotError('INVALID_ARGUMENT', 'dryRun is for repair, which is not asked for');
  }
  return settings;
}
