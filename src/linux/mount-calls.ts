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
const MS_PRIVATE = 1n << 18n;

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

/** Has a mount not take part any more in what is mounted on the one that it was cloned from. */
export function keepPrivate(mount: number): void {
  const attributes = new DataView(new ArrayBuffer(32));
  attributes.setBigUint64(16, MS_PRIVATE, littleEndian);
  checked(
    mountSetattr(SYS_MOUNT_SETATTR, mount, cString(''), AT_EMPTY_PATH, Buffer.from(attributes.buffer), 32),
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
