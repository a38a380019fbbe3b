import { execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

/** A filesystem of its own, on a file. */
export interface Disk {
  /** Where it is mounted. */
  readonly path: string;
  /** A directory on it that a store can be in. */
  readonly root: string;
  remove(): void;
}

/** Makes and mounts a filesystem of a type and a size in MiB. */
export function makeDisk(type: 'ext4' | 'xfs' | 'btrfs', mebibytes: number): Disk {
  const directory = mkdtempSync(join(tmpdir(), 'overlite-disk-'));
  const image = join(directory, 'image');
  const path = join(directory, 'disk');
  const root = join(path, 'root');
  writeFileSync(image, '');
  truncateSync(image, mebibytes * 1024 * 1024);
  const run = (command: string, ...args: string[]): void =>
    void execFileSync(command, args, { stdio: 'pipe' });
  const remove = (): void => {
    try {
      run('umount', path);
    } finally {
      rmSync(directory, { recursive: true, force: true });
    }
  };
  try {
    run(`mkfs.${type}`, '-q', image);
    mkdirSync(path);
    run('mount', '-o', 'loop', image, path);
  } catch (error) {
    rmSync(directory, { recursive: true, force: true });
    throw error;
  }
  mkdirSync(root, { mode: 0o700 });
  return { path, root, remove };
}
