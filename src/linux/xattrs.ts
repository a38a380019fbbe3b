import { errnoOf } from './errno.ts';
import {
  cString,
  checked,
  fgetxattr,
  fremovexattr,
  getxattr,
  lastErrno,
  lgetxattr,
  listxattr,
  llistxattr,
  lsetxattr,
  systemError,
} from './foreign.ts';

/** The most that the kernel lets the names, or one value, have. */
const MAX_BYTES = 65_536;

const buffer = Buffer.alloc(MAX_BYTES);

/** Which extended attributes are read. */
interface ReadOptions {
  /** Read those of the file that a symbolic link leads to. (default: those of the link) */
  readonly follow?: boolean;
  /** Read only those with such names. (default: all) */
  readonly only?: (name: string) => boolean;
}

/**
 * The names of a file's extended attributes, one character for each byte.
 *
 * @returns an empty list where the filesystem has no extended attributes
 */
export function listXattrs(path: Buffer, { follow = false }: Pick<ReadOptions, 'follow'> = {}): string[] {
  const length = Number((follow ? listxattr : llistxattr)(path, buffer, buffer.length));
  if (length < 0) {
    const error = systemError('listxattr', path);
    if (errnoOf(error) === 'ENOTSUP') return [];
    throw error;
  }
  return length === 0 ? [] : buffer.toString('latin1', 0, length - 1).split('\0');
}

/** The names and values of a file's extended attributes, in the order of the names' bytes. */
export function readXattrs(path: Buffer, { follow = false, only }: ReadOptions = {}): [string, Buffer][] {
  const listed = listXattrs(path, { follow });
  const names = only === undefined ? listed : listed.filter(only);
  return names.toSorted().flatMap((name) => {
    const value = readValue(path, name, follow);
    return value === undefined ? [] : [[name, value]];
  });
}

/** The value of an extended attribute; `undefined` if the file does not have it any more. */
function readValue(path: Buffer, name: string, follow: boolean): Buffer | undefined {
  const length = Number((follow ? getxattr : lgetxattr)(path, toAttribute(name), buffer, buffer.length));
  if (length >= 0) return Buffer.from(buffer.subarray(0, length));
  const error = systemError('getxattr', path);
  if (errnoOf(error) === 'ENODATA') return undefined;
  throw error;
}

/** Sets an extended attribute of a file, or of a symbolic link itself. */
export function setXattr(path: Buffer, name: string, value: Buffer): void {
  checked(lsetxattr(path, toAttribute(name), value, value.length, 0), 'lsetxattr', path);
}

/** Removes the access control list that what is created in an open directory inherits. */
export function removeDefaultAcl(dir: number): void {
  // Most directories have no such list, and reading costs less than removing.
  if (fgetxattr(dir, DEFAULT_ACL, buffer, 0) < 0) {
    if (['ENODATA', 'ENOTSUP'].includes(lastErrno())) return;
    throw systemError('fgetxattr', DEFAULT_ACL);
  }
  checked(fremovexattr(dir, DEFAULT_ACL), 'fremovexattr', DEFAULT_ACL);
}

const DEFAULT_ACL = cString('system.posix_acl_default');

function toAttribute(name: string): Buffer {
  return cString(Buffer.from(name, 'latin1'));
}
