import { closeSync, constants, openSync } from 'node:fs';
import { SnapshotError } from '../errors.ts';
import { isGone } from '../linux/errno.ts';
import { cloneMounts, setMountAttributes } from '../linux/mount-calls.ts';
import { quote } from '../quote.ts';
import { withMappedIds } from './idmap.ts';
import type { MountOptions } from './options.ts';

/**
 * Makes a bind mount, with what is mounted below it if the options say so, on the descriptor that is returned. What is
 * to be read-only is so before anyone can see it, and what is mounted below it too.
 *
 * @throws {SnapshotError} DATA_LOSS if what is to be mounted is missing
 */
export async function openBind(source: string, options: MountOptions): Promise<number> {
  const directory = openSource(source);
  try {
    return await withMappedIds(options, async (map) => {
      const mount = map === undefined ? cloneMounts(directory, options.recursive) : map(directory);
      try {
        if (options.attributes !== 0) setMountAttributes(mount, options.attributes, options.recursive);
        return mount;
      } catch (error) {
        closeSync(mount);
        throw error;
      }
    });
  } finally {
    closeSync(directory);
  }
}

function openSource(source: string): number {
  try {
    return openSync(source, constants.O_RDONLY | constants.O_DIRECTORY | constants.O_NOFOLLOW);
  } catch (error) {
    if (!isGone(error)) throw error;
    throw new SnapshotError('DATA_LOSS', `the layer ${quote(source)} is missing or not a directory`, {
      cause: error,
    });
  }
}
