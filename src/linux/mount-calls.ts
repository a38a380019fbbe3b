import { readSync } from 'node:fs';
import { errnoOf } from './errno.ts';
import {
  AT_EMPTY_PATH,
  OPEN_TREE_CLONE,
  O_CLOEXEC,
  SYS_OPEN_TREE,
  cString,
  checked,
  fsconfig,
  fsmount,
  fsopen,
  littleEndian,
  mount2,
  mountSetattr,
  moveMount,
  offThread,
  openTree,
  systemError,
  umount2,
} from './foreign.ts';

const SYS_MOVE_MOUNT = 429;
const SYS_FSOPEN = 430;
const SYS_FSCONFIG = 431;
const SYS_FSMOUNT = 432;
const SYS_MOUNT_SETATTR = 442;
const AT_RECURSIVE = 0x8000;
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
const MS_PRIVATE = 0x40000;

/** The kernel's messages about a filesystem that is being configured: each read returns one of them. */
function messagesOf(fd: number): string {
  const lines: string[] = [];
  const line = Buffer.alloc(1024);
  try {
    for (let length = readSync(fd, line); length > 0; length = readSync(fd, line)) {
      lines.push(line.toString('utf8', 2, length).trim());
    }
  } catch {
    // There are no more.
  }
  return lines.join('; ');
}

function contextError(fd: number, error: Error, what: string): Error {
  const messages = messagesOf(fd);
  error.message = `${errnoOf(error)}: ${what}${messages === '' ? '' : ` (${messages})`}`;
  return error;
}

function configure(fd: number, command: number, key: string, value: Buffer | null, aux: number): void {
  if (Number(fsconfig(SYS_FSCONFIG, fd, command, cString(key), value, aux)) >= 0) return;
  throw contextError(fd, systemError('fsconfig'), `fsconfig ${key}`);
}

/** Begins a filesystem of a type, to be configured and created. @returns its descriptor; closing that abandons it */
export function beginFilesystem(type: string): number {
  return checked(fsopen(SYS_FSOPEN, cString(type), FSOPEN_CLOEXEC), 'fsopen');
}

/** Sets an option without a value. */
export function setFlag(fd: number, key: string): void {
  configure(fd, FSCONFIG_SET_FLAG, key, null, 0);
}

/** Sets an option to a text of at most 255 bytes. */
export function setString(fd: number, key: string, value: string): void {
  configure(fd, FSCONFIG_SET_STRING, key, cString(value), 0);
}

/** Sets an option to an open directory. */
export function setDirectory(fd: number, key: string, directory: number): void {
  configure(fd, FSCONFIG_SET_FD, key, null, directory);
}

/** Creates a filesystem that was configured. If that fails, the error has the kernel's messages. */
export async function createFilesystem(fd: number): Promise<void> {
  try {
    await offThread(fsconfig, [SYS_FSCONFIG, fd, FSCONFIG_CMD_CREATE, null, null, 0], 'fsconfig');
  } catch (error) {
    throw error instanceof Error ? contextError(fd, error, 'fsconfig create') : error;
  }
}

/** Mounts a filesystem that was created as a detached mount. @returns its descriptor */
export function mountDetached(fd: number, attributes = 0): number {
  return checked(fsmount(SYS_FSMOUNT, fd, FSMOUNT_CLOEXEC, attributes), 'fsmount');
}

/** Whether what is mounted below a directory is included. */
interface Depth {
  readonly recursive: boolean;
}

/** Clones what is mounted on a directory as a detached mount. @returns its descriptor */
export function cloneMounts(dir: number, { recursive }: Depth): number {
  const flags = OPEN_TREE_CLONE | O_CLOEXEC | AT_EMPTY_PATH | (recursive ? AT_RECURSIVE : 0);
  return checked(openTree(SYS_OPEN_TREE, dir, cString(''), flags), 'open_tree');
}

/** The fields of `struct mount_attr` that are not 0. */
interface MountAttributes {
  readonly set?: number;
  readonly propagation?: number;
  /** The descriptor of the user namespace by which ids are mapped. */
  readonly userNamespace?: number;
}

/** Sets attributes of a mount. */
export function setMountAttributes(
  mount: number,
  { set = 0, propagation = 0, userNamespace = 0 }: MountAttributes,
  { recursive }: Depth = { recursive: false },
): void {
  const attributes = new DataView(new ArrayBuffer(32));
  attributes.setBigUint64(0, BigInt(set), littleEndian);
  attributes.setBigUint64(16, BigInt(propagation), littleEndian);
  attributes.setBigUint64(24, BigInt(userNamespace), littleEndian);
  const bytes = Buffer.from(attributes.buffer);
  const flags = AT_EMPTY_PATH | (recursive ? AT_RECURSIVE : 0);
  checked(mountSetattr(SYS_MOUNT_SETATTR, mount, cString(''), flags, bytes, bytes.length), 'mount_setattr');
}

/** Makes a mount private: what is mounted on the mount that it was cloned from does not appear in it. */
export function makePrivate(mount: number): void {
  setMountAttributes(mount, { propagation: MS_PRIVATE });
}

/** Attaches a detached mount to an open directory. */
export function attachMount(mount: number, directory: number): void {
  const flags = MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH;
  const nothing = cString('');
  checked(moveMount(SYS_MOVE_MOUNT, mount, nothing, directory, nothing, flags), 'move_mount');
}

/** Mounts with mount(2), which cuts `data` off after 4,095 bytes. */
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

/** The same, on this thread. */
export function mountByStringSync(
  source: string,
  target: string,
  type: string,
  flags: number,
  data: string,
): void {
  const path = cString(target);
  checked(mount2(cString(source), path, cString(type), flags, cString(data)), 'mount', path);
}

/** Unmounts the topmost mount on a directory. With `detach`, what still uses it can go on. */
export async function unmountTop(target: string, { detach }: { detach: boolean }): Promise<void> {
  const flags = UMOUNT_NOFOLLOW | (detach ? MNT_DETACH : 0);
  await offThread(umount2, [cString(target), flags], 'umount2', cString(target));
}
