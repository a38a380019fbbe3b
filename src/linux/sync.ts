import { closeSync, fsyncSync, openSync } from 'node:fs';

/** Makes a directory's entries, or what a file holds, durable. */
export function syncPath(path: string): void {
  const fd = openSync(path, 'r');
  try {
    fsyncSync(fd);
  } finally {
    closeSync(fd);
  }
}
