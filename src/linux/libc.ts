import { constants } from 'node:fs';
import { endianness } from 'node:os';
import { getSystemErrorName } from 'node:util';
import koffi from 'koffi';

/*
 * Every foreign function of this package: a wrong signature crashes the process, so there is one small file of
 * them. File names are bytes that need not be UTF-8 and end in NUL, as `cString` makes them.
 */
const libc = koffi.load(null);
const syscall = libc.func('long syscall(long number, long a, const uint8_t *b, const uint8_t *c, long d)');
const statx = libc.func('int statx(int dir, const uint8_t *name, int flags, uint32_t mask, uint8_t *result)');
const llistxattr = libc.func('long llistxattr(const uint8_t *path, uint8_t *list, size_t size)');
const lgetxattr = libc.func(
  'long lgetxattr(const uint8_t *path, const uint8_t *name, uint8_t *value, size_t size)',
);

const SYS_OPENAT2 = 437; // the same on every architecture
const O_CLOEXEC = 0o2000000;
const RESOLVE_NO_XDEV = 0x01;
const RESOLVE_NO_SYMLINKS = 0x04;
const RESOLVE_BENEATH = 0x08;
const AT_FDCWD = -100;
const AT_SYMLINK_NOFOLLOW = 0x100;
const AT_NO_AUTOMOUNT = 0x800;
const STATX_BASIC_STATS = 0x7ff;
const ENOENT = 2;

const littleEndian = endianness() === 'LE';

/** A failed call, like those of node:fs: `code` is the name of the errno. */
function systemError(call: string, path: Buffer): Error {
  const errno = koffi.errno();
  const code = getSystemErrorName(-errno);
  const where = path.toString().replace(/\0$/, '');
  return Object.assign(new Error(`${code}: ${call} '${where}'`), { code, errno: -errno, syscall: call });
}

/** The bytes of a file name, ended with NUL. */
export function cString(name: Buffer | string): Buffer {
  const bytes = typeof name === 'string' ? Buffer.from(name) : name;
  const result = Buffer.alloc(bytes.length + 1);
  bytes.copy(result);
  return result;
}

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
  const fd = Number(syscall(SYS_OPENAT2, AT_FDCWD, path, plainly, plainly.length));
  if (fd < 0) throw systemError('openat2', path);
  return fd;
}

/**
 * Opens a directory that is right below another one. Fails with `ELOOP` or `ENOTDIR` if it is a symbolic link, and
 * with `EXDEV` if anything is mounted on it, even a part of the same filesystem.
 */
export function openDirectoryBeneath(dir: number, name: Buffer): number {
  const fd = Number(syscall(SYS_OPENAT2, dir, name, beneath, beneath.length));
  if (fd < 0) throw systemError('openat2', name);
  return fd;
}

/** What statx(2) tells of a file, a symbolic link included. The same object is filled in at each call. */
export class FileStatus {
  readonly #result = Buffer.alloc(256);
  readonly #view = new DataView(this.#result.buffer, this.#result.byteOffset, 256);

  /** Looks at a file in a directory. Whether it is there. */
  read(dir: number, name: Buffer): boolean {
    if (statx(dir, name, AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT, STATX_BASIC_STATS, this.#result) === 0)
      return true;
    if (koffi.errno() === ENOENT) return false;
    throw systemError('statx', name);
  }

  get links(): number {
    return this.#view.getUint32(16, littleEndian);
  }
  get uid(): number {
    return this.#view.getUint32(20, littleEndian);
  }
  get gid(): number {
    return this.#view.getUint32(24, littleEndian);
  }
  /** Type and permissions. */
  get mode(): number {
    return this.#view.getUint16(28, littleEndian);
  }
  get inode(): bigint {
    return this.#view.getBigUint64(32, littleEndian);
  }
  /** In bytes. */
  get size(): number {
    return Number(this.#view.getBigUint64(40, littleEndian));
  }
  /** Of 512 bytes each. */
  get blocks(): number {
    return Number(this.#view.getBigUint64(48, littleEndian));
  }
  /** Seconds and nanoseconds. */
  get modified(): string {
    return `${this.#view.getBigInt64(112, littleEndian)}.${this.#view.getUint32(120, littleEndian)}`;
  }
  /** Major and minor number of a device node. */
  get device(): string {
    return `${this.#view.getUint32(128, littleEndian)}:${this.#view.getUint32(132, littleEndian)}`;
  }
}

const xattrBuffer = Buffer.alloc(65_536);

/** Those of the named extended attributes that a file has, a symbolic link not followed. */
export function readXattrs(path: Buffer, names: readonly string[]): [string, Buffer][] {
  const length = Number(llistxattr(path, xattrBuffer, xattrBuffer.length));
  if (length <= 0) return [];
  const present = new Set(xattrBuffer.toString('latin1', 0, length).split('\0'));
  return names
    .filter((name) => present.has(name))
    .map((name) => {
      const size = Number(lgetxattr(path, cString(name), xattrBuffer, xattrBuffer.length));
      if (size < 0) throw systemError('lgetxattr', path);
      return [name, Buffer.from(xattrBuffer.subarray(0, size))];
    });
}
