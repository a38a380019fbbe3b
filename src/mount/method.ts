import { closeSync, constants, openSync } from 'node:fs';
import { SnapshotError } from '../errors.ts';
import { errnoOf } from '../linux/errno.ts';
import { beginFilesystem, setDirectory, setFlag, setString } from '../linux/mount-calls.ts';
import type { MountMethod } from '../snapshot.ts';

/** Every method, the best first. */
export const MOUNT_METHODS = [
  'descriptors',
  'strings',
  'mount(2)',
  'mount(8)',
] as const satisfies readonly MountMethod[];

let best: MountMethod | undefined;

/** The best method that the kernel supports and lets this process use. The kernel is asked once. */
export function bestMethod(): MountMethod {
  best ??= probe();
  return best;
}

/** @throws {SnapshotError} UNIMPLEMENTED if the kernel does not have a method, or does not let this process use it */
export function checkMethod(by: MountMethod): void {
  if (MOUNT_METHODS.indexOf(by) >= MOUNT_METHODS.indexOf(bestMethod())) return;
  throw new SnapshotError('UNIMPLEMENTED', `this kernel cannot mount overlays by ${by}`, {
    hint: `it takes Linux ${by === 'descriptors' ? '6.13' : '6.8'}`,
  });
}

function probe(): MountMethod {
  let context: number;
  try {
    context = beginFilesystem('overlay');
  } catch (error) {
    // A container's system call filter may allow mount(2) only. Without permission to mount, the mount itself fails.
    return errnoOf(error) === 'ENOSYS' ? 'mount(2)' : 'descriptors';
  }
  const root = openSync('/', constants.O_RDONLY | constants.O_DIRECTORY);
  try {
    // Before Linux 6.5, the context only collects options for overlayfs, and so accepts any: even one that cannot exist.
    if (supports(() => setFlag(context, 'no_such_option'))) return 'mount(2)';
    return supports(() => setDirectory(context, 'lowerdir+', root))
      ? 'descriptors'
      : supports(() => setString(context, 'lowerdir+', '/'))
        ? 'strings'
        : 'mount(2)';
  } finally {
    closeSync(root);
    closeSync(context);
  }
}

function supports(configure: () => void): boolean {
  try {
    configure();
    return true;
  } catch {
    return false;
  }
}
