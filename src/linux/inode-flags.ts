import { constants, closeSync, openSync, statfsSync } from 'node:fs';
import { errnoOf } from './errno.ts';
import { holdBeneath } from './file-calls.ts';
import { BTRFS } from './filesystem.ts';
import { FileStatus, isDirectory, isRegular } from './file-status.ts';
import { checked, cString, ioctlOn, littleEndian } from './foreign.ts';
import { fdPath } from './tree-walk.ts';

/*
 * The flags of inodes, which chattr(1) shows and sets.
 */

const FS_IOC_GETFLAGS = 0x80086601;
const FS_IOC_SETFLAGS = 0x40086602;
const FS_IMMUTABLE_FL = 0x10;
const FS_APPEND_FL = 0x20;
const FS_NODUMP_FL = 0x40;
const FS_NOCOW_FL = 0x00800000;
const BTRFS_IOC_SUBVOL_GETFLAGS = 0x80089419;
const BTRFS_IOC_SUBVOL_SETFLAGS = 0x4008941a;
const BTRFS_SUBVOL_RDONLY = 2;

/** What protects a file: it cannot be unlinked, nor can what is in such a directory. */
const PROTECTION = FS_IMMUTABLE_FL | FS_APPEND_FL;

/** The flags that a copy takes over. statx(2) gives them with the same values. */
export const COPIED_FLAGS = PROTECTION | FS_NODUMP_FL;

/** Whether flags protect a file from deletion and renaming. */
export function isProtected({ attributes }: FileStatus): boolean {
  return (attributes & PROTECTION) !== 0;
}

/** Sets flags of an open file beside those that it has. @throws a system error if this process may not do that */
export function addFlags(fd: number, flags: number): void {
  const before = readFlags(fd);
  if ((before & flags) !== flags) writeFlags(fd, before | flags);
}

/** Makes a filesystem that copies on write overwrite the new files of a directory in place. */
export function writeInPlace(dir: number): void {
  addFlags(dir, FS_NOCOW_FL);
}

/**
 * Clears the flags that protect an open file or directory from deletion.
 *
 * @returns what sets them again
 */
export function unprotect(fd: number): () => void {
  const before = readFlags(fd);
  if ((before & PROTECTION) === 0) return () => {};
  writeFlags(fd, before & ~PROTECTION);
  return () => writeFlags(fd, before);
}

/**
 * Unlinks a file in an open directory by `unlink` although flags protect it. If it has other names, they protect it
 * again afterwards, since those may be elsewhere.
 */
export async function unlinkProtected(
  dir: number,
  name: Buffer,
  unlink: () => void | Promise<void>,
): Promise<void> {
  const held = holdBeneath(dir, cString(name));
  let fd: number | undefined;
  try {
    const status = new FileStatus();
    status.readOpen(held);
    // Anything else cannot be opened without effects, and has no flags.
    if (!isRegular(status.mode) && !isDirectory(status.mode)) {
      await unlink();
      return;
    }
    fd = openSync(fdPath(held), constants.O_RDONLY | constants.O_NONBLOCK);
    const protectAgain = unprotect(fd);
    try {
      await unlink();
    } finally {
      status.readOpen(fd);
      if (status.links > 0 && isRegular(status.mode)) protectAgain();
    }
  } finally {
    if (fd !== undefined) closeSync(fd);
    closeSync(held);
  }
}

/** Whether a directory is on a filesystem with subvolumes. */
export function hasSubvolumes(dir: number): boolean {
  return statfsSync(fdPath(dir)).type >>> 0 === BTRFS;
}

/** Makes a directory of btrfs writable if it is the root of a subvolume that is read-only. */
export function makeSubvolumeWritable(dir: number): void {
  const flags = new DataView(new ArrayBuffer(8));
  const argument = Buffer.from(flags.buffer);
  // It fails for a directory that is not the root of a subvolume.
  if (ioctlOn(dir, BTRFS_IOC_SUBVOL_GETFLAGS, argument) < 0) return;
  const before = flags.getBigUint64(0, littleEndian);
  if ((before & BigInt(BTRFS_SUBVOL_RDONLY)) === 0n) return;
  flags.setBigUint64(0, before & ~BigInt(BTRFS_SUBVOL_RDONLY), littleEndian);
  checked(ioctlOn(dir, BTRFS_IOC_SUBVOL_SETFLAGS, argument), 'ioctl BTRFS_IOC_SUBVOL_SETFLAGS');
}

/** The flags of an open file; 0 where the filesystem has none. */
function readFlags(fd: number): number {
  const flags = new DataView(new ArrayBuffer(8));
  try {
    checked(ioctlOn(fd, FS_IOC_GETFLAGS, Buffer.from(flags.buffer)), 'ioctl FS_IOC_GETFLAGS');
  } catch (error) {
    if (['ENOTTY', 'ENOTSUP'].includes(errnoOf(error))) return 0;
    throw error;
  }
  return flags.getUint32(0, littleEndian);
}

function writeFlags(fd: number, flags: number): void {
  const argument = new DataView(new ArrayBuffer(8));
  argument.setUint32(0, flags, littleEndian);
  checked(ioctlOn(fd, FS_IOC_SETFLAGS, Buffer.from(argument.buffer)), 'ioctl FS_IOC_SETFLAGS');
}
