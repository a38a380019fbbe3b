import { accessSync, constants } from 'node:fs';
import { SnapshotError } from '../errors.ts';
import { Descriptors } from '../linux/descriptors.ts';
import { errnoOf } from '../linux/errno.ts';
import { close } from '../linux/fs-promises.ts';
import {
  beginFilesystem,
  createFilesystem,
  mountDetached,
  setDirectory,
  setFlag,
  setString,
} from '../linux/mount-calls.ts';
import { takesDetachedLayers } from '../linux/probe.ts';
import { fdPath } from '../linux/tree-walk.ts';
import { quote } from '../quote.ts';
import { cannotMapIds, withMappedIds } from './idmap.ts';
import type { OpenLayer } from './layer.ts';
import { type MountOptions, READ_ONLY } from './options.ts';

/** The longest value that fsconfig(2) takes, in bytes. */
const MAX_VALUE = 255;

/**
 * Checks that an overlay with an upper directory can be written to: overlayfs makes it read-only if the work directory
 * is damaged.
 *
 * @throws {SnapshotError} FAILED_PRECONDITION if it is read-only
 */
export function checkWritable(path: string, { upper, attributes }: MountOptions): void {
  if (upper === undefined || (attributes & READ_ONLY) !== 0) return;
  try {
    accessSync(path, constants.W_OK);
  } catch (error) {
    if (errnoOf(error) !== 'EROFS') return;
    throw new SnapshotError('FAILED_PRECONDITION', `the overlay of ${quote(upper)} is read-only`, {
      hint: 'something in its work directory is in the way; the kernel log (dmesg) says what',
      cause: error,
    });
  }
}

/**
 * Mounts an overlay, adding one layer at a time, as a detached mount.
 *
 * @returns its descriptor
 * @throws {SnapshotError} DATA_LOSS if a layer is missing
 * @throws {SnapshotError} UNIMPLEMENTED if ids are to be mapped, and this kernel cannot do that
 */
export async function openOverlay(
  source: string,
  options: MountOptions,
  by: 'descriptors' | 'strings',
  open: OpenLayer,
): Promise<number> {
  using opened = new Descriptors();
  if (options.uidMappings !== undefined && !(await takesDetachedLayers())) throw cannotMapIds();
  return await withMappedIds(options, async (map) => {
    const context = opened.add(beginFilesystem('overlay'));
    setString(context, 'source', source);
    const setLayer = (key: string, path: string, mapped: boolean): void => {
      const directory = opened.add(open(path));
      const layer = mapped && map !== undefined ? opened.add(map(directory)) : directory;
      if (by === 'descriptors') setDirectory(context, key, layer);
      else setString(context, key, toValue(key, layer === directory ? path : undefined, layer));
    };
    for (const lower of options.lowers) setLayer('lowerdir+', lower, true);
    for (const data of options.data) setLayer('datadir+', data, true);
    if (options.upper !== undefined) setLayer('upperdir', options.upper, false);
    if (options.work !== undefined) setLayer('workdir', options.work, false);
    if ((options.attributes & READ_ONLY) !== 0) setFlag(context, 'ro');
    for (const { key, value } of options.filesystem) {
      if (value === undefined) setFlag(context, key);
      else setString(context, key, value);
    }
    await createFilesystem(context);
    const mount = mountDetached(context, options.attributes);
    try {
      checkWritable(fdPath(mount), options);
      return mount;
    } catch (error) {
      await close(mount);
      throw error;
    }
  });
}

/** A layer as a string: its path, which then appears in mountinfo, unless that is unknown or too long. */
function toValue(key: string, path: string | undefined, fd: number): string {
  const escaped = key.endsWith('+') ? path : path?.replaceAll('\\', '\\\\');
  return escaped === undefined || Buffer.byteLength(escaped) > MAX_VALUE ? fdPath(fd) : escaped;
}
