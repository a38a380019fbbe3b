import { execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

/** A filesystem that a store can be on. */
export type FilesystemType = 'ext4' | 'xfs' | 'btrfs' | 'tmpfs';

/** A filesystem of its own, on a file. */
export interface Disk {
  readonly type: FilesystemType;
  /** Where it is mounted. */
  readonly path: string;
  /** A directory on it that a store can be in. */
  readonly root: string;
  /** Unmounts it and mounts it again, as after a power cut. */
  remount(): void;
  remove(): void;
}

/** Makes and mounts a filesystem of a type and a size in MiB, for so many files at the most, with more options for mkfs. */
export function makeDisk(
  type: FilesystemType,
  mebibytes: number,
  { inodes, options = [] }: { inodes?: number; options?: string[] } = {},
): Disk {
  const directory = mkdtempSync(join(tmpdir(), 'overlite-disk-'));
  const image = join(directory, 'image');
  const path = join(directory, 'disk');
  const root = join(path, 'root');
  writeFileSync(image, '');
  truncateSync(image, mebibytes * 1024 * 1024);
  const run = (command: string, ...args: string[]): void =>
    void execFileSync(command, args, { stdio: 'pipe' });
  const unmount = (): void => {
    run('umount', path);
    // Other mount namespaces may be a while in letting go of it: mounted twice, it would be ruined.
    while (execFileSync('losetup', ['-j', image]).length > 0) execFileSync('sleep', ['0.01']);
  };
  const remove = (): void => {
    try {
      unmount();
    } finally {
      rmSync(directory, { recursive: true, force: true });
    }
  };
  try {
    mkdirSync(path);
    if (type === 'tmpfs') {
      const most = inodes === undefined ? '' : `,nr_inodes=${inodes}`;
      run('mount', '-t', type, '-o', `size=${mebibytes}m${most}`, type, path);
    } else {
      run(`mkfs.${type}`, '-q', ...(inodes === undefined ? [] : ['-N', String(inodes)]), ...options, image);
      run('mount', '-o', 'loop', image, path);
    }
  } catch (error) {
    rmSync(directory, { recursive: true, force: true });
    throw error;
  }
  mkdirSync(root, { mode: 0o700 });
  const remount = (): void => {
    unmount();
    run('mount', '-o', 'loop', image, path);
  };
  return { type, path, root, remount, remove };
}
