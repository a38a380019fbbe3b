import { close, constants, mkdirSync, openSync, rmSync } from 'node:fs';
import { promisify } from 'node:util';
import { errnoOf } from './errno.ts';
import { inUserNamespace } from './filesystem.ts';
import { beginFilesystem, createFilesystem, mountDetached, setString } from './mount-calls.ts';
import { fdPath } from './tree.ts';

const closeOf = promisify(close);

/**
 * Whether some overlay mount has a directory for its upper or work directory: in any mount namespace, and also one
 * that was detached and lives on in open files. It is found out by beginning an overlay that has the directory for a
 * lower one, since with `index=on` the kernel refuses that. Nothing is mounted and nothing on the directory changes.
 *
 * @returns `undefined` where this process may not ask, or this kernel cannot tell
 */
export async function isUpperInUse(directory: string): Promise<boolean | undefined> {
  // There the index, which tells, is silently left out.
  if (inUserNamespace()) return undefined;
  const opened: number[] = [];
  const open = (fd: number): number => {
    opened.push(fd);
    return fd;
  };
  try {
    // Of its own, in memory: giving up an overlay syncs the filesystem of its upper directory.
    const memory = open(beginFilesystem('tmpfs'));
    setString(memory, 'size', '1m');
    await createFilesystem(memory);
    const scratch = fdPath(open(mountDetached(memory)));
    for (const name of ['upper', 'work']) mkdirSync(`${scratch}/${name}`);
    const lower = fdPath(
      open(openSync(directory, constants.O_RDONLY | constants.O_DIRECTORY | constants.O_NOFOLLOW)),
    );
    const overlay = open(beginFilesystem('overlay'));
    setString(overlay, 'lowerdir', lower);
    setString(overlay, 'upperdir', `${scratch}/upper`);
    setString(overlay, 'workdir', `${scratch}/work`);
    setString(overlay, 'index', 'on');
    await createFilesystem(overlay);
    return false;
  } catch (error) {
    if (errnoOf(error) === 'EBUSY') return true;
    if (['EPERM', 'ENOSYS', 'EINVAL', 'ENODEV'].includes(errnoOf(error))) return undefined;
    throw error;
  } finally {
    for (const fd of opened.toReversed()) await closeOf(fd);
  }
}

/**
 * Whether overlays need the option `userxattr` here, as they do in most user namespaces. It is found out by deleting
 * and making again a directory of a lower layer, which without it fails although the mount succeeds.
 */
export async function needsUserxattr(): Promise<boolean> {
  if (!inUserNamespace()) return false;
  const opened: number[] = [];
  const open = (fd: number): number => {
    opened.push(fd);
    return fd;
  };
  try {
    const memory = open(beginFilesystem('tmpfs'));
    await createFilesystem(memory);
    const scratch = fdPath(open(mountDetached(memory)));
    mkdirSync(`${scratch}/lower/d/e`, { recursive: true });
    for (const name of ['upper', 'work']) mkdirSync(`${scratch}/${name}`);
    const overlay = open(beginFilesystem('overlay'));
    for (const name of ['lower', 'upper', 'work']) setString(overlay, `${name}dir`, `${scratch}/${name}`);
    await createFilesystem(overlay);
    const mounted = fdPath(open(mountDetached(overlay)));
    rmSync(`${mounted}/d`, { recursive: true });
    mkdirSync(`${mounted}/d`);
    return false;
  } catch {
    return true;
  } finally {
    for (const fd of opened.toReversed()) await closeOf(fd);
  }
}
