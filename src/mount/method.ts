import { closeSync, constants, openSync } from 'node:fs';
import { errnoOf } from '../linux/errno.ts';
import { beginFilesystem, setDirectory, setString } from '../linux/mount-calls.ts';
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
