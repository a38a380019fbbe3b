import { closeSync, fsyncSync, openSync } from 'node:fs';

/** Makes the entries of a directory, or the contents of a file, durable. */
export function syncPath(path: string): void {
  const fd = openSync(path, 'r');
  try {
    fsyncSync(fd);
  } finally {
    closeSync(fd);
  }
}
