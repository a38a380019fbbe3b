import { checkPlain } from '../linux/plain-file.ts';

/** What SQLite puts behind the name of a database for the other files that it opens by their paths. */
export const FILE_SUFFIXES = ['', '-wal', '-shm', '-journal'] as const;

/**
 * Checks that SQLite finds regular files, or none, where it opens the files of a database. It follows no links there
 * either, but waits for ever for whoever opens the other end of a fifo.
 */
export function checkFiles(database: string): void {
  for (const suffix of FILE_SUFFIXES) checkPlain(`${database}${suffix}`);
}
