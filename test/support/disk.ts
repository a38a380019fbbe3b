import { execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, truncateSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { ensureFileSync, removeSync } from 'fs-extra/esm';

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
  /** Unmounts it while `body` works on its image. */
  unmounted(body: (image: string) => Promise<void>): Promise<void>;
  /** Another disk, with what has reached the device of this one so far: what a power cut in this moment would leave. */
  cut(): Disk;
  remove(): void;
}

/** Makes and mounts a filesystem of a type and a size in MiB, for so many files at the most, with more options for mkfs. */
export function makeDisk(
  type: FilesystemType,
  mebibytes: number,
  { inodes, options = [] }: { inodes?: number; options?: string[] } = {},
): Disk {
  const disk = new DiskImage(type);
  try {
    if (type === 'tmpfs') {
      const most = inodes === undefined ? '' : `,nr_inodes=${inodes}`;
      run('mount', '-t', type, '-o', `size=${mebibytes}m${most}`, type, disk.path);
    } else {
      ensureFileSync(disk.image);
      truncateSync(disk.image, mebibytes * 1024 * 1024);
      run(
        `mkfs.${type}`,
        '-q',
        ...(inodes === undefined ? [] : ['-N', String(inodes)]),
        ...options,
        disk.image,
      );
      disk.mount();
    }
  } catch (error) {
    disk.removeImage();
    throw error;
  }
  mkdirSync(disk.root, { mode: 0o700 });
  return disk;
}

function run(command: string, ...args: string[]): void {
  execFileSync(command, args, { stdio: 'pipe' });
}

/** Runs a script that tries something until it succeeds, and ends it if it never does. */
function repeat(script: string, ...args: string[]): void {
  run('timeout', '120', 'sh', '-c', script, 'sh', ...args);
}

class DiskImage implements Disk {
  readonly type: FilesystemType;
  readonly #directory = mkdtempSync(join(tmpdir(), 'overlite-disk-'));
  readonly image = join(this.#directory, 'image');
  readonly path = join(this.#directory, 'disk');
  readonly root = join(this.path, 'root');

  constructor(type: FilesystemType) {
    this.type = type;
    mkdirSync(this.path);
  }

  mount(): void {
    run('mount', '-o', 'loop', this.image, this.path);
  }

  remount(): void {
    this.#unmount();
    this.mount();
  }

  async unmounted(body: (image: string) => Promise<void>): Promise<void> {
    this.#unmount();
    try {
      await body(this.image);
    } finally {
      this.mount();
    }
  }

  cut(): Disk {
    const other = new DiskImage(this.type);
    try {
      // Again if the kernel has written to it meanwhile: it is to be of one moment.
      repeat('until cp --sparse=always "$1" "$2" && cmp -s "$1" "$2"; do :; done', this.image, other.image);
      // As at a start: 1 says that something has been put right.
      if (this.type === 'ext4') run('sh', '-c', 'e2fsck -fy "$1" || [ $? -eq 1 ]', 'sh', other.image);
      other.mount();
    } catch (error) {
      other.removeImage();
      throw error;
    }
    return other;
  }

  remove(): void {
    try {
      this.#unmount();
    } finally {
      this.removeImage();
    }
  }

  removeImage(): void {
    removeSync(this.#directory);
  }

  #unmount(): void {
    run('umount', this.path);
    // Other mount namespaces may be a while in letting go of it: mounted twice, it would be ruined.
    repeat('until [ -z "$(losetup -j "$1")" ]; do sleep 0.01; done', this.image);
  }
}
