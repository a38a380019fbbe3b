import { constants } from 'node:fs';
import { errnoOf } from './errno.ts';
import {
  AT_EMPTY_PATH,
  AT_FDCWD,
  OPEN_TREE_CLONE,
  O_CLOEXEC,
  SYS_OPEN_TREE,
  cString,
  checked,
  copyFileRange,
  flock,
  getdents64,
  ioctl,
  ioctlOn,
  littleEndian,
  lseek,
  mknodat,
  offThread,
  openTree,
  openat2,
  poll,
  statx,
  syncfs,
  systemError,
  utimensat,
} from './foreign.ts';

// The numbers of the newer system calls are the same on every architecture.
const SYS_OPENAT2 = 437;
/** Before version 2.33, glibc has no function for it. */
const SYS_MKNODAT = ({ x64: 259, s390x: 290, ppc64: 288 } as Record<string, number>)[process.arch] ?? 33;
const SYS_GETDENTS64 = ({ x64: 217, s390x: 220, ppc64: 202 } as Record<string, number>)[process.arch] ?? 61;
const RESOLVE_NO_XDEV = 0x01;
const RESOLVE_NO_SYMLINKS = 0x04;
const RESOLVE_BENEATH = 0x08;
const AT_SYMLINK_NOFOLLOW = 0x100;
const AT_NO_AUTOMOUNT = 0x800;
const STATX_BASIC_STATS = 0x7ff;
const FICLONE = 0x40049409;
const FS_IOC_GETFLAGS = 0x80086601;
const FS_IOC_SETFLAGS = 0x40086602;
const FS_NOCOW_FL = 0x00800000;
const LOCK_EX_NB = 2 | 4;
const POLLPRI = 0x02;
const SEEK_DATA = 3;
const SEEK_HOLE = 4;

/** The longest path that these calls are given: longer ones are taken in parts. */
export const MAX_PATH = 4000;

// Opening -------------------------------------------------------------------------------------------------------

function openHow(resolve: number): Buffer {
  const how = new DataView(new ArrayBuffer(24));
  const flags = constants.O_RDONLY | constants.O_DIRECTORY | constants.O_NOFOLLOW | O_CLOEXEC;
  how.setBigUint64(0, BigInt(flags), littleEndian);
  how.setBigUint64(16, BigInt(resolve), littleEndian);
  return Buffer.from(how.buffer);
}

const plainly = openHow(RESOLVE_NO_SYMLINKS);
const beneath = openHow(RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_XDEV);

/** Opens a directory by its absolute path, no part of which may be a symbolic link. */
export function openDirectory(path: Buffer): number {
  return checked(openat2(SYS_OPENAT2, AT_FDCWD, path, plainly, plainly.length), 'openat2', path);
}

/**
 * Opens a directory below another one. Fails with `ELOOP` or `ENOTDIR` if it or what leads to it is a symbolic link,
 * and with `EXDEV` if anything is mounted on it, even a part of the same filesystem.
 */
export function openDirectoryBeneath(dir: number, path: Buffer): number {
  return checked(openat2(SYS_OPENAT2, dir, path, beneath, beneath.length), 'openat2', path);
}

/** Opens a directory once more as it is below all mounts on anything in it, if this process may do that. */
export function openBelowMounts(dir: number): number | undefined {
  const flags = OPEN_TREE_CLONE | O_CLOEXEC | AT_EMPTY_PATH;
  const tree = Number(openTree(SYS_OPEN_TREE, dir, cString(''), flags));
  return tree < 0 ? undefined : tree;
}

// Looking -------------------------------------------------------------------------------------------------------

/** Has statx(2) tell of a file in a directory, a symbolic link not followed; of the directory itself if unnamed. */
export function readStatus(dir: number, name: Buffer, result: Buffer): void {
  const flags = AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT | (name.length === 1 ? AT_EMPTY_PATH : 0);
  checked(statx(dir, name, flags, STATX_BASIC_STATS, result), 'statx', name);
}

/**
 * Reads on in an open directory. @returns how many bytes of records, as getdents64(2) has them; none at its end, or if
 * it has been deleted meanwhile
 */
export function readEntries(dir: number, entries: Buffer): number {
  const length = Number(getdents64(SYS_GETDENTS64, dir, entries, entries.length));
  if (length >= 0) return length;
  const error = systemError('getdents64');
  if (errnoOf(error) === 'ENOENT') return 0;
  throw error;
}

/** Whether a directory tells the types of its files, which overlayfs needs to delete what is in a lower layer. */
export function supportsDType(dir: number): boolean {
  const entries = Buffer.alloc(1024);
  readEntries(dir, entries);
  // The first one, which is "." or "..", has its type behind two numbers of eight bytes and one of two.
  return entries[18] !== 0;
}

/** Whether an open mountinfo(5) has changed since this was asked, or that could not be found out. */
export function hasChanged(fd: number): boolean {
  const asked = new DataView(new ArrayBuffer(8));
  asked.setInt32(0, fd, littleEndian);
  asked.setInt16(4, POLLPRI, littleEndian);
  // A signal may come between.
  return poll(Buffer.from(asked.buffer), 1, 0) !== 0;
}

// Making --------------------------------------------------------------------------------------------------------

/** Makes a fifo, a socket or a device node. */
export function makeNode(
  path: Buffer,
  mode: number,
  { major, minor }: { major: number; minor: number },
): void {
  const device = (minor & 0xff) | (major << 8) | ((minor & ~0xff) << 12);
  checked(mknodat(SYS_MKNODAT, AT_FDCWD, path, mode, device), 'mknodat', path);
}

/** Sets the times of access and of modification, two `struct timespec`, a symbolic link not followed. */
export function setTimes(path: Buffer, times: Buffer): void {
  checked(utimensat(AT_FDCWD, path, times, AT_SYMLINK_NOFOLLOW), 'utimensat', path);
}

/** Lets an empty file share all the data of another. Whether the filesystem can do that. */
export async function cloneFile(from: number, to: number): Promise<boolean> {
  try {
    await offThread(ioctl, [to, FICLONE, from], 'ioctl FICLONE');
    return true;
  } catch (error) {
    if (['ENOTSUP', 'EINVAL', 'EXDEV', 'ENOTTY', 'ENOSYS'].includes(errnoOf(error))) return false;
    throw error;
  }
}

/** Copies a range from one file to the same place of another. @returns how many bytes; none at the end of the file */
export async function copyRange(from: number, to: number, offset: number, length: number): Promise<number> {
  // The call advances each offset, so both need a buffer of their own.
  const [read, written] = [toOffset(offset), toOffset(offset)];
  return offThread(copyFileRange, [from, read, to, written, length, 0], 'copy_file_range');
}

function toOffset(value: number): Buffer {
  const bytes = new DataView(new ArrayBuffer(8));
  bytes.setBigInt64(0, BigInt(value), littleEndian);
  return Buffer.from(bytes.buffer);
}

/** Where in a file the next data begins, at or after an offset; `undefined` if there is only a hole. */
export function nextData(fd: number, offset: number): number | undefined {
  const data = Number(lseek(fd, offset, SEEK_DATA));
  if (data >= 0) return data;
  const error = systemError('lseek');
  if (errnoOf(error) === 'ENXIO') return undefined;
  throw error;
}

/** Where in a file the next hole begins, at or after an offset; there is one at its end. */
export function nextHole(fd: number, offset: number): number {
  return checked(lseek(fd, offset, SEEK_HOLE), 'lseek');
}

/** Has new files in a directory written in place, on a filesystem that would otherwise write each change elsewhere. */
export function writeInPlace(dir: number): void {
  const flags = new DataView(new ArrayBuffer(8));
  const argument = Buffer.from(flags.buffer);
  checked(ioctlOn(dir, FS_IOC_GETFLAGS, argument), 'ioctl FS_IOC_GETFLAGS');
  flags.setUint32(0, flags.getUint32(0, littleEndian) | FS_NOCOW_FL, littleEndian);
  checked(ioctlOn(dir, FS_IOC_SETFLAGS, argument), 'ioctl FS_IOC_SETFLAGS');
}

// Locking and syncing ----------------------------------------------------------------------------------------------

/** Takes the lock on an open file for as long as it is open, unless someone else has it. Whether it is taken. */
export function tryLock(fd: number): boolean {
  if (flock(fd, LOCK_EX_NB) === 0) return true;
  const error = systemError('flock');
  if (errnoOf(error) === 'EAGAIN') return false;
  throw error;
}

/** Makes everything on the filesystem of an open file durable. */
export async function syncFilesystem(fd: number): Promise<void> {
  await offThread(syncfs, [fd], 'syncfs');
}

/** Does the same on this thread. */
export function syncFilesystemNow(fd: number): void {
  checked(syncfs(fd), 'syncfs');
}
