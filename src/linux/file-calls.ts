import { closeSync, constants } from 'node:fs';
import { constants as os } from 'node:os';
import { errnoOf } from './errno.ts';
import {
  AT_EMPTY_PATH,
  AT_FDCWD,
  OPEN_TREE_CLONE,
  O_CLOEXEC,
  O_PATH,
  SYS_OPEN_TREE,
  cString,
  checked,
  copyFileRange,
  fcntl,
  flock,
  getdents64,
  ioctl,
  littleEndian,
  lseek,
  mkdirat,
  mknodat,
  nameToHandleAt,
  offThread,
  openTree,
  openat2,
  poll,
  renameat,
  statx,
  syncfs,
  systemError,
  unlinkat,
  utimensat,
} from './foreign.ts';

// The numbers of the newer system calls are the same on every architecture.
const SYS_OPENAT2 = 437;
/** Before version 2.33, glibc has no function for it. */
const SYS_MKNODAT = ({ x64: 259, s390x: 290, ppc64: 288 } as Record<string, number>)[process.arch] ?? 33;
const SYS_GETDENTS64 = ({ x64: 217, s390x: 220, ppc64: 202 } as Record<string, number>)[process.arch] ?? 61;
const RESOLVE_NO_XDEV = 0x01;
const RESOLVE_NO_MAGICLINKS = 0x02;
const RESOLVE_NO_SYMLINKS = 0x04;
const RESOLVE_BENEATH = 0x08;
const RESOLVE_IN_ROOT = 0x10;
const AT_SYMLINK_NOFOLLOW = 0x100;
const AT_REMOVEDIR = 0x200;
const AT_NO_AUTOMOUNT = 0x800;
const STATX_BASIC_STATS = 0x7ff;
const STATX_BTIME = 0x800;
const MAX_HANDLE_BYTES = 128;
const FICLONE = 0x40049409;
const NS_GET_USERNS = 0xb701;
const LOCK_SH_NB = 1 | 4;
const LOCK_EX_NB = 2 | 4;
const F_SETSIG = 10;
const F_SETLEASE = 1024;
const F_RDLCK = 0;
const F_UNLCK = 2;
const POLLPRI = 0x02;
const SEEK_DATA = 3;
const SEEK_HOLE = 4;

/** The longest path to give to a call, in bytes: a longer one has to be taken in parts. */
export const MAX_PATH = 4000;

const DOT = Buffer.from('.');
const SLASH = Buffer.from('/');

// Opening -------------------------------------------------------------------------------------------------------

function openHow(flags: number, resolve: number): Buffer {
  const how = new DataView(new ArrayBuffer(24));
  how.setBigUint64(0, BigInt(flags | O_CLOEXEC), littleEndian);
  how.setBigUint64(16, BigInt(resolve), littleEndian);
  return Buffer.from(how.buffer);
}

const DIRECTORY = constants.O_RDONLY | constants.O_DIRECTORY | constants.O_NOFOLLOW;
const BENEATH = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS;
const plainly = openHow(DIRECTORY, RESOLVE_NO_SYMLINKS);
const beneath = openHow(DIRECTORY, BENEATH | RESOLVE_NO_XDEV);
const mounted = openHow(DIRECTORY, BENEATH);
const held = openHow(O_PATH | constants.O_NOFOLLOW, BENEATH);
const inRoot = openHow(O_PATH | constants.O_DIRECTORY, RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS);

/**
 * Opens a directory by a path that is valid for a process with another root directory: absolute symbolic links on the
 * way start there too. The descriptor has O_PATH. It is opened on another thread, since a network filesystem can make
 * that take long.
 */
export function openDirectoryInRoot(root: number, path: Buffer): Promise<number> {
  return offThread(openat2, [SYS_OPENAT2, root, path, inRoot, inRoot.length], 'openat2', path);
}

/** Opens a directory by its absolute path. Fails with `ELOOP` or `ENOTDIR` if a part of that is a symbolic link. */
export function openDirectory(path: Buffer): number {
  return checked(openat2(SYS_OPENAT2, AT_FDCWD, path, plainly, plainly.length), 'openat2', path);
}

/**
 * Opens a directory below an open one. Fails with `ELOOP` or `ENOTDIR` if a part of the path is a symbolic link, and
 * with `EXDEV` if something is mounted on a part of it, even from the same filesystem.
 */
export function openDirectoryBeneath(dir: number, path: Buffer): number {
  return checked(openat2(SYS_OPENAT2, dir, path, beneath, beneath.length), 'openat2', path);
}

/** The same, except that it opens what is mounted on a part of the path. */
export function openDirectoryOrMount(dir: number, path: Buffer): number {
  return checked(openat2(SYS_OPENAT2, dir, path, mounted, mounted.length), 'openat2', path);
}

/**
 * Holds a file of any type below an open directory, with O_PATH: that opens nothing, and so has no effect on a device or
 * a fifo. A symbolic link at the end of the path is held itself; one before that makes it fail with `ELOOP`.
 */
export function holdBeneath(dir: number, path: Buffer): number {
  return checked(openat2(SYS_OPENAT2, dir, path, held, held.length), 'openat2', path);
}

/**
 * Opens a directory below an open one in the same way, by the names on the way there: together they may be longer than
 * any path that the kernel takes.
 */
export function openLongPathBeneath(dir: number, names: readonly Buffer[]): number {
  let opened = dir;
  for (let next = 0; next < names.length || opened === dir;) {
    const part: Buffer[] = [DOT];
    for (let length = 0; next < names.length; next += 1) {
      const name = names[next] ?? DOT;
      length += name.length + 1;
      if (length > MAX_PATH) break;
      part.push(SLASH, name);
    }
    try {
      const deeper = openDirectoryBeneath(opened, cString(Buffer.concat(part)));
      if (opened !== dir) closeSync(opened);
      opened = deeper;
    } catch (error) {
      if (opened !== dir) closeSync(opened);
      throw error;
    }
  }
  return opened;
}

/**
 * Opens a directory again without the mounts on anything in it: it shows what is below them.
 *
 * @returns `undefined` if this process may not do that
 */
export function openWithoutMounts(dir: number): number | undefined {
  const flags = OPEN_TREE_CLONE | O_CLOEXEC | AT_EMPTY_PATH;
  const tree = Number(openTree(SYS_OPEN_TREE, dir, cString(''), flags));
  return tree < 0 ? undefined : tree;
}

// Reading -------------------------------------------------------------------------------------------------------

/**
 * Reads the `struct statx` of a file in an open directory, or with an empty name of the directory itself. A symbolic
 * link is not followed.
 */
export function readStatus(dir: number, name: Buffer, result: Buffer): void {
  const flags = AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT | (name.length === 1 ? AT_EMPTY_PATH : 0);
  checked(statx(dir, name, flags, STATX_BASIC_STATS | STATX_BTIME, result), 'statx', name);
}

/**
 * The handle of an open file, which names its inode and the generation of that.
 *
 * @returns `undefined` if the filesystem has no handles, or this process may not have them
 */
export function fileHandle(fd: number): Buffer | undefined {
  const handle = Buffer.alloc(8 + MAX_HANDLE_BYTES);
  new DataView(handle.buffer, handle.byteOffset).setUint32(0, MAX_HANDLE_BYTES, littleEndian);
  if (nameToHandleAt(fd, cString(''), handle, Buffer.alloc(8), AT_EMPTY_PATH) === 0) return handle;
  const error = systemError('name_to_handle_at');
  if (['ENOTSUP', 'EOVERFLOW', 'EPERM', 'ENOSYS'].includes(errnoOf(error))) return undefined;
  throw error;
}

/**
 * Reads the next entries of an open directory with getdents64(2).
 *
 * @returns the bytes that were read: 0 at the end, or if the directory has been deleted
 */
export function readEntries(dir: number, entries: Buffer): number {
  const length = Number(getdents64(SYS_GETDENTS64, dir, entries, entries.length));
  if (length >= 0) return length;
  const error = systemError('getdents64');
  if (errnoOf(error) === 'ENOENT') return 0;
  throw error;
}

/** Whether the entries of a directory have types, which overlayfs needs to delete files of lower layers. */
export function supportsDType(dir: number): boolean {
  const entries = Buffer.alloc(1024);
  readEntries(dir, entries);
  // The type of the first entry, which is "." or "..", follows two numbers of eight bytes and one of two.
  return entries[18] !== 0;
}

/** Whether an open mountinfo file has changed since the last call. Also true if that could not be found out. */
export function hasChanged(fd: number): boolean {
  const asked = new DataView(new ArrayBuffer(8));
  asked.setInt32(0, fd, littleEndian);
  asked.setInt16(4, POLLPRI, littleEndian);
  // A signal can interrupt the call.
  return poll(Buffer.from(asked.buffer), 1, 0) !== 0;
}

// Creating, moving, removing ---------------------------------------------------------------------------------------

/** Creates a directory in an open one. The umask takes bits of its mode away. */
export function createDirectory(dir: number, name: Buffer, mode: number): void {
  checked(mkdirat(dir, name, mode), 'mkdirat', name);
}

/** Removes an empty directory from an open one. */
export function removeDirectory(dir: number, name: Buffer): void {
  checked(unlinkat(dir, name, AT_REMOVEDIR), 'unlinkat', name);
}

/** Moves a file from one open directory to another. */
export function moveFile(dir: number, name: Buffer, toDir: number, toName: Buffer): void {
  checked(renameat(dir, name, toDir, toName), 'renameat', name);
}

/** Creates a fifo, a socket or a device node. */
export function makeNode(
  path: Buffer,
  mode: number,
  { major, minor }: { major: number; minor: number },
): void {
  const device = (minor & 0xff) | (major << 8) | ((minor & ~0xff) << 12);
  checked(mknodat(SYS_MKNODAT, AT_FDCWD, path, mode, device), 'mknodat', path);
}

/** Sets the times of access and modification, given as two `struct timespec`. A symbolic link is not followed. */
export function setTimes(path: Buffer, times: Buffer): void {
  checked(utimensat(AT_FDCWD, path, times, AT_SYMLINK_NOFOLLOW), 'utimensat', path);
}

/** Makes an empty file share the data of another one. @returns whether the filesystem can do that */
export async function cloneFile(from: number, to: number): Promise<boolean> {
  try {
    await offThread(ioctl, [to, FICLONE, from], 'ioctl FICLONE');
    return true;
  } catch (error) {
    if (['ENOTSUP', 'EINVAL', 'EXDEV', 'ENOTTY', 'ENOSYS'].includes(errnoOf(error))) return false;
    throw error;
  }
}

/** Copies a range from one file to the same offset of another. @returns the bytes that were copied: 0 at the end */
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

/** The offset of the next data in a file, at or after an offset; `undefined` if only a hole follows. */
export function nextData(fd: number, offset: number): number | undefined {
  const data = Number(lseek(fd, offset, SEEK_DATA));
  if (data >= 0) return data;
  const error = systemError('lseek');
  if (errnoOf(error) === 'ENXIO') return undefined;
  throw error;
}

/**
 * The offset of the next hole in a file, at or after an offset. The end of the file counts as one; `undefined` if the
 * offset is behind it.
 */
export function nextHole(fd: number, offset: number): number | undefined {
  const hole = Number(lseek(fd, offset, SEEK_HOLE));
  if (hole >= 0) return hole;
  const error = systemError('lseek');
  if (errnoOf(error) === 'ENXIO') return undefined;
  throw error;
}

// Namespaces ----------------------------------------------------------------------------------------------------

/**
 * Opens the user namespace that an open namespace belongs to.
 *
 * @returns `undefined` if that is not this process's user namespace and not one below it
 */
export function userNamespaceOf(namespace: number): number | undefined {
  const owner = ioctl(namespace, NS_GET_USERNS, 0);
  if (owner >= 0) return owner;
  const error = systemError('ioctl NS_GET_USERNS');
  if (errnoOf(error) === 'EPERM') return undefined;
  throw error;
}

// Locking and syncing ----------------------------------------------------------------------------------------------

/**
 * Locks an open file until it is closed, unless another descriptor has the lock.
 *
 * @param shared whether others may have the lock too, if they share it (default: false)
 * @returns whether it did
 */
export function tryLock(fd: number, { shared = false } = {}): boolean {
  if (flock(fd, shared ? LOCK_SH_NB : LOCK_EX_NB) === 0) return true;
  const error = systemError('flock');
  if (errnoOf(error) === 'EAGAIN') return false;
  throw error;
}

/**
 * Whether some process has a file open for writing, or mapped so, by whatever mount. The kernel then refuses a lease.
 *
 * @param fd the file, open for reading only
 * @returns `undefined` if this process or the filesystem cannot have leases
 */
export function isOpenForWriting(fd: number): boolean | undefined {
  // If somebody opens the file right now, the lease's owner gets a signal: this one is ignored.
  fcntl(fd, F_SETSIG, os.signals.SIGURG);
  if (fcntl(fd, F_SETLEASE, F_RDLCK) !== 0) {
    const error = systemError('fcntl F_SETLEASE');
    if (errnoOf(error) === 'EAGAIN') return true;
    if (['EACCES', 'EPERM', 'EINVAL'].includes(errnoOf(error))) return undefined;
    throw error;
  }
  checked(fcntl(fd, F_SETLEASE, F_UNLCK), 'fcntl F_SETLEASE');
  return false;
}

/** Makes everything on the filesystem of an open file durable. */
export async function syncFilesystem(fd: number): Promise<void> {
  await offThread(syncfs, [fd], 'syncfs');
}

/** The same as `syncFilesystem`, on this thread. */
export function syncFilesystemNow(fd: number): void {
  checked(syncfs(fd), 'syncfs');
}
