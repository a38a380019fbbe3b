import { closeSync } from 'node:fs';
import { cloneMounts, setMountAttributes } from '../linux/mount-calls.ts';
import { withMappedIds } from './idmap.ts';
import type { OpenLayer } from './layer.ts';
import type { MountOptions } from './options.ts';

/**
 * Makes a detached bind mount. With the option `rbind`, what is mounted below the source is included, and gets the same
 * attributes. It has its attributes, such as read-only, before it is attached.
 *
 * @returns its descriptor
 * @throws {SnapshotError} DATA_LOSS if the source is missing
 */
export async function openBind(source: string, options: MountOptions, open: OpenLayer): Promise<number> {
  const directory = open(source);
  try {
    return await withMappedIds(options, async (map) => {
      const mount = map === undefined ? cloneMounts(directory, options) : map(directory);
      try {
        if (options.attributes !== 0) setMountAttributes(mount, { set: options.attributes }, options);
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
