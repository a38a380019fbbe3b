import { resolve } from 'node:path';
import { runInChild } from '../child/run.ts';
import { SnapshotError } from '../errors.ts';
import { kindOf, quote } from '../names.ts';
import type { BackupInput } from './backup.ts';

/**
 * Writes a consistent copy of a database to a new file, in a process of its own.
 *
 * @throws {TypeError} if the file is not a string
 * @throws {SnapshotError} as `OverlayDriver.backup`
 */
export async function backupDatabase(database: string, file: string): Promise<void> {
  if (typeof file !== 'string') throw new TypeError(`the file must be a string, not ${kindOf(file)}`);
  if (file === '' || file.includes('\0')) {
    throw new SnapshotError('INVALID_ARGUMENT', `${quote(file)} is not a path`);
  }
  await runInChild('backup', { database, file: resolve(file) } satisfies BackupInput);
}
