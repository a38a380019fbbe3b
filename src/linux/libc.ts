import { constants, readSync } from 'node:fs';
import { endianness } from 'node:os';
import { getSystemErrorName } from 'node:util';
import koffi from 'koffi';
import { errnoOf } from './errno.ts';

/*
 * Every foreign function of this package: a wrong signature crashes the process, so there is one small file of
 * them. File names are bytes that need not be UTF-8 and end in NUL, as `cString` makes them. What fails throws an
 * error like those of node:fs.
 */
const libc = koffi.load(null);
const openat2 = libc.func(
  'long syscall(long number, long dir, const uint8_t *path, const uint8_t *how, long size)',
);
const openTree = libc.func('long syscall(long number, long dir, const uint8_t *path, long flags)');
const fsopen = libc.func('long syscall(long number, const uint8_t *type, long flags)');
const fsconfig = libc.func(
  'long syscall(long number, long fd, long command, const uint8_t *key, const uint8_t *value, long aux)',
);
const fsmount = libc.func('long syscall(long number, long fd, long flags, long attributes)');
const getdents64 = libc.func('long syscall(long number, long dir, uint8_t *entries, long size)');
const moveMount = libc.func(
  'long syscall(long number, long fd, const uint8_t *path, long toDir, const uint8_t *to, long flags)',
);
const mountSetattr = libc.func(
  'long syscall(long number, long dir, const uint8_t *path, long flags, const uint8_t *attributes, long size)',
);
const mount2 = libc.func(
  'int mount(const uint8_t *source, const uint8_t *target, const uint8_t *type, unsigned long flags, const uint8_t *data)',
);
const umount2 = libc.func('int umount2(const uint8_t *target, int flags)');
const mknodat = libc.func('long syscall(long number, long dir, const uint8_t *path, long mode, long device)');
const statx = libc.func('int statx(int dir, const uint8_t *name, int flags, uint32_t mask, uint8_t *result)');
const utimensat = libc.func('int utimensat(int dir, const uint8_t *path, const uint8_t *times, int flags)');
const llistxattr = libc.func('long llistxattr(const uint8_t *path, uint8_t *list, size_t size)');
const lgetxattr = libc.func(
  'long lgetxattr(const uint8_t *path, const uint8_t *name, uint8_t *value, size_t size)',
);
const listxattr = libc.func('long listxattr(const uint8_t *path, uint8_t *list, size_t size)');
const getxattr = libc.func(
  'long getxattr(const uint8_t *path, const uint8_t *name, uint8_t *value, size_t size)',
);
const lsetxattr = libc.func(
  'int lsetxattr(const uint8_t *path, const uint8_t *name, const uint8_t *value, size_t size, int flags)',
);
const lseek = libc.func('int64_t lseek(int fd, int64_t offset, int whence)');
const ioctl = libc.func('int ioctl(int fd, unsigned long request, long argument)');
const ioctlOn = libc.func('int ioctl(int fd, unsigned long request, uint8_t *argument)');
const copyFileRange = libc.func(
  'long copy_file_range(int from, uint8_t *offset, int to, uint8_t *toOffset, size_t length, uint32_t flags)',
);
const flock = libc.func('int flock(int fd, int operation)');
const syncfs = libc.func('int syncfs(int fd)');

// The numbers of the newer system calls are the same on every architecture.
const SYS_OPEN_TREE = 428;
const SYS_MOVE_MOUNT = 429;
const SYS_FSOPEN = 430;
const SYS_FSCONFIG = 431;
const SYS_FSMOUNT = 432;
const SYS_OPENAT2 = 437;
const SYS_MOUNT_SETATTR = 442;
/** Before version 2.33, glibc has no function for it. */
const SYS_MKNODAT = ({ x64: 259, s390x: 290, ppc64: 288 } as Record<string, number>)[process.arch] ?? 33;

const O_CLOEXEC = 0o2000000;
const RESOLVE_NO_XDEV = 0x01;
const RESOLVE_NO_SYMLINKS = 0x04;
const RESOLVE_BENEATH = 0x08;
const AT_FDCWD = -100;
const AT_SYMLINK_NOFOLLOW = 0x100;
const AT_NO_AUTOMOUNT = 0x800;
const AT_EMPTY_PATH = 0x1000;
const AT_RECURSIVE = 0x8000;
const OPEN_TREE_CLONE = 1;
const STATX_BASIC_STATS = 0x7ff;
const FSOPEN_CLOEXEC = 1;
const FSCONFIG_SET_FLAG = 0;
const FSCONFIG_SET_STRING = 1;
const FSCONFIG_SET_FD = 5;
const FSCONFIG_CMD_CREATE = 6;
const FSMOUNT_CLOEXEC = 1;
const MOVE_MOUNT_F_EMPTY_PATH = 0x04;
const MOVE_MOUNT_T_EMPTY_PATH = 0x40;
const UMOUNT_NOFOLLOW = 0x08;
const MNT_DETACH = 0x02;
const FICLONE = 0x40049409;
const FS_IOC_GETFLAGS = 0x80086601;
const FS_IOC_SETFLAGS = 0x40086602;
const FS_NOCOW_FL = 0x00800000;
const LOCK_EX_NB = 2 | 4;
const SEEK_DATA = 3;
const SEEK_HOLE = 4;

export const littleEndian = endianness() === 'LE';

/** A failed call: `code` is the name of the errno. */
function systemError(call: string, path?: Buffer): Error {
  const errno = koffi.errno();
  const code = getSystemErrorName(-errno);
  const where = path === undefined ? '' : ` '${path.toString().replace(/\0$/, '')}'`;
  return Object.assign(new Error(`${code}: ${call}${where}`), { code, errno: -errno, syscall: call });
}

/** What a call returned, unless it failed. */
function checked(result: unknown, call: string, path?: Buffer): number {
  const value = Number(result);
  if (value < 0) throw systemError(call, path);
  return value;
}

/** Makes a call on another thread. The errno is there to read only within the callback. */
function offThread(
  fn: ReturnType<typeof libc.func>,
  args: unknown[],
  call: string,
  path?: Buffer,
): Promise<number> {
  return new Promise((resolve, reject) => {
    fn.async(...args, (error: unknown, result: unknown) => {
      if (error instanceof Error) reject(error);
      else if (Number(result) < 0) reject(systemError(call, path));
      else resolve(Number(result));
    });
  });
}

/** The bytes of a file name, ended with NUL. */
export function cString(name: Buffer | string): Buffer {
  const bytes = typeof name === 'string' ? Buffer.from(name) : name;
  const result = Buffer.alloc(bytes.length + 1);
  bytes.copy(result);
  return result;
}

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

/** Whether a directory tells the types of its files, which overlayfs needs to delete what is in a lower layer. */
export function tellsTypes(dir: number): boolean {
  const SYS_GETDENTS64 = ({ x64: 217, s390x: 220, ppc64: 202 } as Record<string, number>)[process.arch] ?? 61;
  const entries = Buffer.alloc(1024);
  checked(getdents64(SYS_GETDENTS64, dir, entries, entries.length), 'getdents64');
  // The first one, which is "." or "..", has its type behind two numbers of eight bytes and one of two.
  return entries[18] !== 0;
}

const xattrBuffer = Buffer.alloc(65_536);

/** Whether a path that ends in a symbolic link stands for what that leads to. */
interface Following {
  readonly follow?: boolean;
}

/** The names of a file's extended attributes. */
export function listXattrs(path: Buffer, { follow = false }: Following = {}): string[] {
  const length = Number((follow ? listxattr : llistxattr)(path, xattrBuffer, xattrBuffer.length));
  if (length < 0) {
    const error = systemError('listxattr', path);
    if (errnoOf(error) === 'ENOTSUP') return [];
    throw error;
  }
  return length === 0 ? [] : xattrBuffer.toString('latin1', 0, length - 1).split('\0');
}

/** The value of an extended attribute. */
export function readXattr(path: Buffer, name: string, { follow = false }: Following = {}): Buffer {
  const attribute = cString(Buffer.from(name, 'latin1'));
  const read = follow ? getxattr : lgetxattr;
  const size = checked(read(path, attribute, xattrBuffer, xattrBuffer.length), 'getxattr', path);
  return Buffer.from(xattrBuffer.subarray(0, size));
}

// Making --------------------------------------------------------------------------------------------------------

/** Sets an extended attribute, a symbolic link not followed. */
export function setXattr(path: Buffer, name: string, value: Buffer): void {
  const attribute = cString(Buffer.from(name, 'latin1'));
  checked(lsetxattr(path, attribute, value, value.length, 0), 'lsetxattr', path);
}

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
  const offsets = [offset, offset].map((value) => {
    const place = new DataView(new ArrayBuffer(8));
    place.setBigInt64(0, BigInt(value), littleEndian);
    return Buffer.from(place.buffer);
  });
  return offThread(copyFileRange, [from, offsets[0], to, offsets[1], length, 0], 'copy_file_range');
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

// Mounting --------------------------------------------------------------------------------------------------------

/** What the kernel has to say of a filesystem that is being set up: each read gives one line of it. */
function wordsOf(fd: number): string {
  const lines: string[] = [];
  const line = Buffer.alloc(1024);
  try {
    for (let length = readSync(fd, line); length > 0; length = readSync(fd, line)) {
      lines.push(line.toString('utf8', 2, length).trim());
    }
  } catch {
    // There is no more of it.
  }
  return lines.join('; ');
}

function contextError(fd: number, error: Error, what: string): Error {
  const words = wordsOf(fd);
  error.message = `${errnoOf(error)}: ${what}${words === '' ? '' : ` (${words})`}`;
  return error;
}

function configure(fd: number, command: number, key: string, value: Buffer | null, aux: number): void {
  if (Number(fsconfig(SYS_FSCONFIG, fd, command, cString(key), value, aux)) >= 0) return;
  throw contextError(fd, systemError('fsconfig'), `fsconfig ${key}`);
}

/** Begins a filesystem of a type, to be configured and then created; closing the descriptor gives it up. */
export function beginFilesystem(type: string): number {
  return checked(fsopen(SYS_FSOPEN, cString(type), FSOPEN_CLOEXEC), 'fsopen');
}

/** Sets an option without a value. */
export function setFlag(fd: number, key: string): void {
  configure(fd, FSCONFIG_SET_FLAG, key, null, 0);
}

/** Sets an option to a text, of 255 bytes at the most. */
export function setString(fd: number, key: string, value: string): void {
  configure(fd, FSCONFIG_SET_STRING, key, cString(value), 0);
}

/** Sets an option to an open directory. */
export function setDirectory(fd: number, key: string, directory: number): void {
  configure(fd, FSCONFIG_SET_FD, key, null, directory);
}

/** Creates a filesystem that was configured. The error has the kernel's own words. */
export async function createFilesystem(fd: number): Promise<void> {
  try {
    await offThread(fsconfig, [SYS_FSCONFIG, fd, FSCONFIG_CMD_CREATE, null, null, 0], 'fsconfig');
  } catch (error) {
    throw error instanceof Error ? contextError(fd, error, 'fsconfig create') : error;
  }
}

/** Mounts a filesystem that was created nowhere but on the descriptor that this returns. */
export function mountDetached(fd: number, attributes = 0): number {
  return checked(fsmount(SYS_FSMOUNT, fd, FSMOUNT_CLOEXEC, attributes), 'fsmount');
}

/** Clones what is mounted at a directory, with what is mounted below it, nowhere but on the descriptor returned. */
export function cloneMounts(dir: number, recursive: boolean): number {
  const flags = OPEN_TREE_CLONE | O_CLOEXEC | AT_EMPTY_PATH | (recursive ? AT_RECURSIVE : 0);
  return checked(openTree(SYS_OPEN_TREE, dir, cString(''), flags), 'open_tree');
}

/** Sets attributes of a mount, and of those below it; maps ids by a user namespace, if one is given. */
export function setMountAttributes(mount: number, set: number, recursive: boolean, userNamespace = 0): void {
  const attributes = new DataView(new ArrayBuffer(32));
  attributes.setBigUint64(0, BigInt(set), littleEndian);
  attributes.setBigUint64(24, BigInt(userNamespace), littleEndian);
  const flags = AT_EMPTY_PATH | (recursive ? AT_RECURSIVE : 0);
  checked(
    mountSetattr(SYS_MOUNT_SETATTR, mount, cString(''), flags, Buffer.from(attributes.buffer), 32),
    'mount_setattr',
  );
}

/** Moves a mount from its descriptor to a directory that is open. */
export function attachMount(mount: number, directory: number): void {
  const flags = MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH;
  const nothing = cString('');
  checked(moveMount(SYS_MOVE_MOUNT, mount, nothing, directory, nothing, flags), 'move_mount');
}

/** mount(2), as it was before there were descriptors: of `data`, 4,095 bytes are taken, and the rest is cut off. */
export async function mountByString(
  source: string,
  target: string,
  type: string,
  flags: number,
  data: string,
): Promise<void> {
  await offThread(
    mount2,
    [cString(source), cString(target), cString(type), flags, cString(data)],
    'mount',
    cString(target),
  );
}

/** Undoes the topmost mount on a directory; `detach` lets what still uses it go on. */
export async function unmountTop(target: string, { detach }: { detach: boolean }): Promise<void> {
  const flags = UMOUNT_NOFOLLOW | (detach ? MNT_DETACH : 0);
  await offThread(umount2, [cString(target), flags], 'umount2', cString(target));
}
