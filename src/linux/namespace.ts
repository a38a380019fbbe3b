import { closeSync, constants, openSync } from 'node:fs';
import { Descriptors } from './descriptors.ts';
import { cString, checked, chroot, fchdir, mount2, setns, unshare } from './foreign.ts';
import { attachMount } from './mount-calls.ts';

const CLONE_NEWNS = 0x20000;
const MS_BIND = 0x1000;
const MS_REC = 0x4000;
const MS_PRIVATE = 0x40000;

/**
 * Runs `body` in a new mount namespace, a copy of this one. No other process sees what it mounts and unmounts, and the
 * processes that it starts stay in that namespace. Only this thread enters it, and it returns with `body`, so `body`
 * must be synchronous.
 *
 * @throws a system error like those of node:fs, or what `body` throws
 */
export function inNewMountNamespace<T>(body: () => T): T {
  using opened = new Descriptors();
  const home = opened.add(openSync('/proc/thread-self/ns/mnt', 'r'));
  const root = opened.add(openSync('/', 'r'));
  const directory = opened.add(openSync('.', 'r'));
  checked(unshare(CLONE_NEWNS), 'unshare');
  try {
    checked(mount2(null, cString('/'), null, MS_REC | MS_PRIVATE, null), 'mount');
    return body();
  } finally {
    // setns(2) changes the root directory to that of the namespace, which need not be the one of this process.
    checked(setns(home, CLONE_NEWNS), 'setns');
    checked(fchdir(root), 'fchdir');
    checked(chroot(cString('.')), 'chroot');
    checked(fchdir(directory), 'fchdir');
  }
}

/** Attaches a detached mount to a directory. */
export function attachMountAt(mount: number, directory: string): void {
  const fd = openSync(directory, constants.O_RDONLY | constants.O_DIRECTORY | constants.O_NOFOLLOW);
  try {
    attachMount(mount, fd);
  } finally {
    closeSync(fd);
  }
}

/** Changes the root directory of this thread, until `inNewMountNamespace` returns. */
export function changeRoot(directory: string): void {
  checked(chroot(cString(directory)), 'chroot', cString(directory));
}

/** Binds a directory, and everything that is mounted below it, to another directory. */
export function bindMounts(source: string, target: string): void {
  checked(mount2(cString(source), cString(target), null, MS_BIND | MS_REC, null), 'mount', cString(target));
}
