import { endianness } from 'node:os';
import { getSystemErrorName } from 'node:util';
import koffi from 'koffi';
import { guarded } from '../guarded.ts';

/*
 * Every foreign function of this package. A wrong prototype crashes the process, so they are all in this file, and the
 * TypeScript signature of each is derived from its prototype. File names are bytes, which need not be UTF-8, with a NUL
 * at the end: `cString` makes them. A call that fails throws an error like those of node:fs.
 */

/** The type of a parameter in a C prototype: a pointer takes a buffer, and null too if it is declared `_Nullable`. */
type ParameterType<Parameter extends string> = Parameter extends `${string}*_Nullable ${string}`
  ? Buffer | null
  : Parameter extends `${string}*${string}`
    ? Buffer
    : number;

type ParameterTypes<List extends string> = List extends `${infer First}, ${infer Others}`
  ? [ParameterType<First>, ...ParameterTypes<Others>]
  : [ParameterType<List>];

type ParametersOf<Prototype extends string> = Prototype extends `${string}(${infer List})`
  ? ParameterTypes<List>
  : never;

/** A result of 64 bits is a bigint if it is outside the range of exact numbers. */
type ResultOf<Prototype extends string> = Prototype extends `int ${string}` ? number : number | bigint;

interface ForeignFunction<Args extends unknown[], Result = number | bigint> {
  (...args: Args): Result;
  /** Makes the call on another thread. */
  async(...args: [...Args, callback: (error: Error | null, result: Result) => void]): void;
}

const libc = koffi.load(null);

/** Looks a function up in the C library. `_Nullable` is a qualifier of Clang, which koffi does not know. */
function foreign<Prototype extends string>(
  prototype: Prototype,
): ForeignFunction<ParametersOf<Prototype>, ResultOf<Prototype>> {
  return libc.func(prototype.replaceAll('_Nullable ', ''));
}

export const openat2 = foreign(
  'long syscall(long number, long dir, const uint8_t *path, const uint8_t *how, long size)',
);
export const openTree = foreign('long syscall(long number, long dir, const uint8_t *path, long flags)');
export const fsopen = foreign('long syscall(long number, const uint8_t *type, long flags)');
export const fsconfig = foreign(
  'long syscall(long number, long fd, long command, const uint8_t *_Nullable key, const uint8_t *_Nullable value, long aux)',
);
export const fsmount = foreign('long syscall(long number, long fd, long flags, long attributes)');
export const getdents64 = foreign('long syscall(long number, long dir, uint8_t *entries, long size)');
export const moveMount = foreign(
  'long syscall(long number, long fd, const uint8_t *path, long toDir, const uint8_t *to, long flags)',
);
export const mountSetattr = foreign(
  'long syscall(long number, long dir, const uint8_t *path, long flags, const uint8_t *attributes, long size)',
);
export const mount2 = foreign(
  'int mount(const uint8_t *_Nullable source, const uint8_t *target, const uint8_t *_Nullable type, unsigned long flags, const uint8_t *_Nullable data)',
);
export const umount2 = foreign('int umount2(const uint8_t *target, int flags)');
export const mknodat = foreign(
  'long syscall(long number, long dir, const uint8_t *path, long mode, long device)',
);
export const statx = foreign(
  'int statx(int dir, const uint8_t *name, int flags, uint32_t mask, uint8_t *result)',
);
export const mkdirat = foreign('int mkdirat(int dir, const uint8_t *path, uint32_t mode)');
export const unlinkat = foreign('int unlinkat(int dir, const uint8_t *path, int flags)');
export const renameat = foreign(
  'int renameat(int dir, const uint8_t *path, int toDir, const uint8_t *toPath)',
);
export const nameToHandleAt = foreign(
  'int name_to_handle_at(int dir, const uint8_t *path, uint8_t *handle, uint8_t *mountId, int flags)',
);
export const utimensat = foreign(
  'int utimensat(int dir, const uint8_t *path, const uint8_t *times, int flags)',
);
export const llistxattr = foreign('long llistxattr(const uint8_t *path, uint8_t *list, size_t size)');
export const lgetxattr = foreign(
  'long lgetxattr(const uint8_t *path, const uint8_t *name, uint8_t *value, size_t size)',
);
export const listxattr = foreign('long listxattr(const uint8_t *path, uint8_t *list, size_t size)');
export const getxattr = foreign(
  'long getxattr(const uint8_t *path, const uint8_t *name, uint8_t *value, size_t size)',
);
export const lsetxattr = foreign(
  'int lsetxattr(const uint8_t *path, const uint8_t *name, const uint8_t *value, size_t size, int flags)',
);
export const fgetxattr = foreign('long fgetxattr(int fd, const uint8_t *name, uint8_t *value, size_t size)');
export const fremovexattr = foreign('int fremovexattr(int fd, const uint8_t *name)');
export const lseek = foreign('int64_t lseek(int fd, int64_t offset, int whence)');
export const ioctl = foreign('int ioctl(int fd, unsigned long request, long argument)');
export const ioctlOn = foreign('int ioctl(int fd, unsigned long request, uint8_t *argument)');
export const copyFileRange = foreign(
  'long copy_file_range(int from, uint8_t *offset, int to, uint8_t *toOffset, size_t length, uint32_t flags)',
);
export const clockGettime = foreign('int clock_gettime(int clock, uint8_t *result)');
export const poll = foreign('int poll(uint8_t *fds, unsigned long count, int timeout)');
export const fcntl = foreign('int fcntl(int fd, int command, long argument)');
export const flock = foreign('int flock(int fd, int operation)');
export const syncfs = foreign('int syncfs(int fd)');
export const unshare = foreign('int unshare(int flags)');
export const setns = foreign('int setns(int fd, int type)');
export const fchdir = foreign('int fchdir(int fd)');
export const chroot = foreign('int chroot(const uint8_t *path)');
export const socket = foreign('int socket(int domain, int type, int protocol)');
export const sendto = foreign(
  'long sendto(int fd, const uint8_t *message, size_t size, int flags, const uint8_t *address, uint32_t length)',
);

export const O_CLOEXEC = 0o2000000;
export const O_PATH = 0o10000000;
export const AT_FDCWD = -100;
export const AT_EMPTY_PATH = 0x1000;
export const OPEN_TREE_CLONE = 1;
export const SYS_OPEN_TREE = 428;

export const littleEndian = endianness() === 'LE';

/** The name of the errno of the last call that failed: for one that often does, since an error takes time to make. */
export function lastErrno(): string {
  return getSystemErrorName(-koffi.errno());
}

/** A failed call: `code` is the name of the errno. */
export function systemError(call: string, path?: Buffer): Error {
  const errno = koffi.errno();
  const code = getSystemErrorName(-errno);
  const where = path === undefined ? '' : ` '${path.toString('utf8', 0, path.indexOf(0))}'`;
  return Object.assign(new Error(`${code}: ${call}${where}`), { code, errno: -errno, syscall: call });
}

/** @returns what a call returned @throws a system error if the call failed */
export function checked(result: number | bigint, call: string, path?: Buffer): number {
  const value = Number(result);
  if (value < 0) throw systemError(call, path);
  return value;
}

/** Makes a call on another thread. */
export function offThread<Args extends unknown[]>(
  fn: ForeignFunction<Args>,
  args: NoInfer<Args>,
  call: string,
  path?: Buffer,
): Promise<number> {
  return new Promise((resolve, reject) => {
    const settle = guarded((error: Error | null, result: number | bigint) => {
      // The errno of the call can be read only in this callback.
      if (error !== null) reject(error);
      else if (Number(result) < 0) reject(systemError(call, path));
      else resolve(Number(result));
    }, reject);
    fn.async(...args, settle);
  });
}

/** The bytes of a file name, ended with NUL. */
export function cString(name: Buffer | string): Buffer {
  if (typeof name === 'string') return Buffer.from(`${name}\0`);
  const result = Buffer.allocUnsafe(name.length + 1);
  name.copy(result);
  result[name.length] = 0;
  return result;
}
