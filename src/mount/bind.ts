import { closeSync } from 'node:fs';
import { cloneMounts, setMountAttributes } from '../linux/mount-calls.ts';
import { withMappedIds } from './idmap.ts';
import { openLayer } from './layer.ts';
import type { MountOptions } from './options.ts';

/**
 * Makes a bind mount, with what is mounted below it if the options say so, on the descriptor that is returned. What is
 * to be read-only is so before anyone can see it, and what is mounted below it too.
 *
 * @throws {SnapshotError} DATA_LOSS if what is to be mounted is missing
 */
export async function openBind(source: string, options: MountOptions): Promise<number> {
  const directory = openLayer(source);
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
