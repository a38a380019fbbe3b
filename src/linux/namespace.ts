import { closeSync, constants, openSync } from 'node:fs';
import { Descriptors } from './descriptors.ts';
import { cString, checked, chroot, fchdir, mount2, setns, unshare } from './foreign.ts';
import { attachMount } from './mount-calls.ts';

const CLONE_NEWNS = 0x20000;
const MS_BIND = 0x1000;
const MS_REC = 0x4000;
const MS_PRIVATE = 0x40000;

/**
 * Runs `body` in a new mount namespace, a copy of this one: what it mounts and unmounts is seen by nobody else, and the
 * processes that it starts stay there. Only this thread goes there and back, so that `body` must do all it has to do
 * before it returns.
 *
 * @throws what the operating system says, as node:fs does, or what `body` throws
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
    // Going back leads to the root of the namespace, which need not be the one that this process has.
    checked(setns(home, CLONE_NEWNS), 'setns');
    checked(fchdir(root), 'fchdir');
    checked(chroot(cString('.')), 'chroot');
    checked(fchdir(directory), 'fchdir');
  }
}

/** Moves a mount from its descriptor to a directory. */
export function attachMountAt(mount: number, directory: string): void {
  const fd = openSync(directory, constants.O_RDONLY | constants.O_DIRECTORY | constants.O_NOFOLLOW);
  try {
    attachMount(mount, fd);
  } finally {
    closeSync(fd);
  }
}

/** Makes a directory the root of this thread, as long as `inNewMountNamespace` runs. */
export function changeRoot(directory: string): void {
  checked(chroot(cString(directory)), 'chroot', cString(directory));
}

/** Mounts a directory, with all that is mounted below it, on another one as well. */
export function bindMounts(source: string, target: string): void {
  checked(mount2(cString(source), cString(target), null, MS_BIND | MS_REC, null), 'mount', cString(target));
}
