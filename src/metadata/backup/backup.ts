import { statSync } from 'node:fs';
import { resolve } from 'node:path';
import { defineTask, runInChild } from '../../linux/child.ts';
import { unlessGone } from '../../linux/errno.ts';
import { identityOf } from '../../linux/identity.ts';
import { SnapshotError } from '../../errors.ts';
import { checkOptions, kindOf, watchedOptions } from '../../arguments.ts';
import { quote } from '../../quote.ts';
import type { BackupOptions, Tally } from '../../snapshot.ts';
import { removePartial } from './files.ts';
import type { BackupBegun, BackupInput } from './backup.task.ts';

/** Backs up a database, in a child process. */
export const backupTask = defineTask<BackupInput, BackupBegun, void>('backup');

/** How often progress is reported, in milliseconds. */
const PROGRESS_MS = 100;

/**
 * Writes a consistent copy of a database to a new file, in a process of its own.
 *
 * @throws {TypeError} if the file is not a string, or an option of a wrong type or unknown
 * @throws {SnapshotError} as `OverlayDriver.backup`
 * @throws the reason of `signal`, or what `onProgress` throws
 */
export async function backupDatabase(database: string, file: string, options?: BackupOptions): Promise<void> {
  if (typeof file !== 'string') throw new TypeError(`the file must be a string, not ${kindOf(file)}`);
  if (file === '' || file.includes('\0')) {
    throw new SnapshotError('INVALID_ARGUMENT', `${quote(file)} is not a path`);
  }
  const { signal, onProgress } = checkOptions(options, watchedOptions<Tally>());
  // An error that `onProgress` throws ends the copy too.
  const failed = new AbortController();
  const ended = signal === undefined ? failed.signal : AbortSignal.any([signal, failed.signal]);
  let begun: BackupBegun | undefined;
  const report = (): void => {
    if (begun === undefined) return;
    const size = statSync(begun.partial, { throwIfNoEntry: false })?.size ?? begun.total;
    try {
      onProgress?.({ done: Math.min(size, begun.total), total: begun.total });
    } catch (error) {
      failed.abort(error);
    }
  };
  const onEvent = (event: BackupBegun): void => {
    begun = event;
    report();
  };
  const timer = onProgress && setInterval(report, PROGRESS_MS);
  try {
    const input: BackupInput = {
      database,
      file: resolve(file),
      identity: unlessGone(() => identityOf(database)),
    };
    await runInChild(backupTask, input, { signal: ended, onEvent });
  } catch (error) {
    if (begun !== undefined) removePartial(begun.partial);
    throw ended.aborted ? ended.reason : error;
  } finally {
    clearInterval(timer);
  }
}
