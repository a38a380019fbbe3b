import { statSync } from 'node:fs';
import { resolve } from 'node:path';
import { defineTask, runInChild } from '../../linux/child.ts';
import { unlessGone } from '../../linux/errno.ts';
import { identityOf } from '../../linux/identity.ts';
import { SnapshotError, wrongType } from '../../errors.ts';
import { guarded } from '../../guarded.ts';
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
  if (typeof file !== 'string') throw wrongType(`the file must be a string, not ${kindOf(file)}`);
  if (file === '' || file.includes('\0')) {
    throw new SnapshotError('INVALID_ARGUMENT', `${quote(file)} is not a path`);
  }
  const { signal, onProgress } = checkOptions(options, watchedOptions<Tally>());
  // An error that `onProgress` throws ends the copy too.
  const failed = new AbortController();
  const ended = signal === undefined ? failed.signal : AbortSignal.any([signal, failed.signal]);
  let begun: BackupBegun | undefined;
  const report = guarded(
    () => {
      if (begun === undefined) return;
      const size = sizeOf(begun.partial) ?? begun.total;
      onProgress?.({ done: Math.min(size, begun.total), total: begun.total });
    },
    (error) => failed.abort(error),
  );
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
    if (begun !== undefined) removeLeft(begun.partial);
    throw ended.aborted ? ended.reason : error;
  } finally {
    clearInterval(timer);
  }
}

/** The size of a file; `undefined` if it cannot be looked at: what is wrong with its path, the copy says. */
function sizeOf(file: string): number | undefined {
  try {
    return statSync(file, { throwIfNoEntry: false })?.size;
  } catch {
    return undefined;
  }
}

/** Removes what a copy has left that failed, if that can be done: the caller is to get the error of the copy. */
function removeLeft(partial: string): void {
  try {
    removePartial(partial);
  } catch {
    // It could not be made either, or the disk has failed.
  }
}
