import { endianness } from 'node:os';
import { getSystemErrorName } from 'node:util';
import koffi from 'koffi';

/*
 * Every foreign function of this package: a wrong signature crashes the process, so there is one small file of
 * them. File names are bytes that need not be UTF-8 and end in NUL, as `cString` makes them. What fails throws an
 * error like those of node:fs.
 */
const libc = koffi.load(null);
export const openat2 = libc.func(
  'long syscall(long number, long dir, const uint8_t *path, const uint8_t *how, long size)',
);
export const openTree = libc.func('long syscall(long number, long dir, const uint8_t *path, long flags)');
export const fsopen = libc.func('long syscall(long number, const uint8_t *type, long flags)');
export const fsconfig = libc.func(
  'long syscall(long number, long fd, long command, const uint8_t *key, const uint8_t *value, long aux)',
);
export const fsmount = libc.func('long syscall(long number, long fd, long flags, long attributes)');
export const getdents64 = libc.func('long syscall(long number, long dir, uint8_t *entries, long size)');
export const moveMount = libc.func(
  'long syscall(long number, long fd, const uint8_t *path, long toDir, const uint8_t *to, long flags)',
);
export const mountSetattr = libc.func(
  'long syscall(long number, long dir, const uint8_t *path, long flags, const uint8_t *attributes, long size)',
);
export const mount2 = libc.func(
  'int mount(const uint8_t *source, const uint8_t *target, const uint8_t *type, unsigned long flags, const uint8_t *data)',
);
export const umount2 = libc.func('int umount2(const uint8_t *target, int flags)');
export const mknodat = libc.func(
  'long syscall(long number, long dir, const uint8_t *path, long mode, long device)',
);
export const statx = libc.func(
  'int statx(int dir, const uint8_t *name, int flags, uint32_t mask, uint8_t *result)',
);
export const utimensat = libc.func(
  'int utimensat(int dir, const uint8_t *path, const uint8_t *times, int flags)',
);
export const llistxattr = libc.func('long llistxattr(const uint8_t *path, uint8_t *list, size_t size)');
export const lgetxattr = libc.func(
  'long lgetxattr(const uint8_t *path, const uint8_t *name, uint8_t *value, size_t size)',
);
export const listxattr = libc.func('long listxattr(const uint8_t *path, uint8_t *list, size_t size)');
export const getxattr = libc.func(
  'long getxattr(const uint8_t *path, const uint8_t *name, uint8_t *value, size_t size)',
);
export const lsetxattr = libc.func(
  'int lsetxattr(const uint8_t *path, const uint8_t *name, const uint8_t *value, size_t size, int flags)',
);
export const lseek = libc.func('int64_t lseek(int fd, int64_t offset, int whence)');
export const ioctl = libc.func('int ioctl(int fd, unsigned long request, long argument)');
export const ioctlOn = libc.func('int ioctl(int fd, unsigned long request, uint8_t *argument)');
export const copyFileRange = libc.func(
  'long copy_file_range(int from, uint8_t *offset, int to, uint8_t *toOffset, size_t length, uint32_t flags)',
);
export const poll = libc.func('int poll(uint8_t *fds, unsigned long count, int timeout)');
export const flock = libc.func('int flock(int fd, int operation)');
export const syncfs = libc.func('int syncfs(int fd)');
export const unshare = libc.func('int unshare(int flags)');
export const setns = libc.func('int setns(int fd, int type)');
export const fchdir = libc.func('int fchdir(int fd)');
export const chroot = libc.func('int chroot(const uint8_t *path)');
export const socket = libc.func('int socket(int domain, int type, int protocol)');
export const sendto = libc.func(
  'long sendto(int fd, const uint8_t *message, size_t size, int flags, const uint8_t *address, uint32_t length)',
);

export const O_CLOEXEC = 0o2000000;
export const AT_FDCWD = -100;
export const AT_EMPTY_PATH = 0x1000;
export const OPEN_TREE_CLONE = 1;
export const SYS_OPEN_TREE = 428;

export const littleEndian = endianness() === 'LE';

/** A failed call: `code` is the name of the errno. */
export function systemError(call: string, path?: Buffer): Error {
  const errno = koffi.errno();
  const code = getSystemErrorName(-errno);
  const where = path === undefined ? '' : ` '${path.toString('utf8', 0, path.indexOf(0))}'`;
  return Object.assign(new Error(`${code}: ${call}${where}`), { code, errno: -errno, syscall: call });
}

/** What a call returned, unless it failed. */
export function checked(result: unknown, call: string, path?: Buffer): number {
  const value = Number(result);
  if (value < 0) throw systemError(call, path);
  return value;
}

/** Makes a call on another thread. The errno is there to read only within the callback. */
export function offThread(
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
  const result = Buffer.allocUnsafe(bytes.length + 1);
  bytes.copy(result);
  result[bytes.length] = 0;
  return result;
}
