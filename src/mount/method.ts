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

/** The best way that this kernel knows and this process may use. It is found out once, by asking the kernel. */
export function bestMethod(): MountMethod {
  best ??= probe();
  return best;
}

function probe(): MountMethod {
  let context: number;
  try {
    context = beginFilesystem('overlay');
  } catch (error) {
    // A container's filter may know mount(2) only; without any right to mount, the call itself will say so.
    return errnoOf(error) === 'ENOSYS' ? 'mount(2)' : 'descriptors';
  }
  const root = openSync('/', constants.O_RDONLY | constants.O_DIRECTORY);
  try {
    return knows(() => setDirectory(context, 'lowerdir+', root))
      ? 'descriptors'
      : knows(() => setString(context, 'lowerdir+', '/'))
        ? 'strings'
        : 'mount(2)';
  } finally {
    closeSync(root);
    closeSync(context);
  }
}

function knows(configure: () => void): boolean {
  try {
    configure();
    return true;
  } catch {
    return false;
  }
}
