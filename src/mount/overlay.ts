import { execFile } from 'node:child_process';
import { accessSync, closeSync, constants } from 'node:fs';
import { dirname } from 'node:path';
import { promisify } from 'node:util';
import { SnapshotError } from '../errors.ts';
import { Descriptors } from '../linux/descriptors.ts';
import { errnoOf } from '../linux/errno.ts';
import { close } from '../linux/fs-promises.ts';
import {
  beginFilesystem,
  createFilesystem,
  mountByString,
  mountDetached,
  setDirectory,
  setFlag,
  setString,
} from '../linux/mount-calls.ts';
import { fdPath } from '../linux/tree-walk.ts';
import { quote } from '../quote.ts';
import { withMappedIds } from './idmap.ts';
import type { OpenLayer } from './layer.ts';
import { ATTRIBUTES, type MountOptions, READ_ONLY } from './options.ts';

const run = promisify(execFile);

/** The longest options that mount(2) takes, in bytes. It cuts longer ones off, and so would mount fewer layers. */
const MAX_STRING = 4095;

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
 */
export async function openOverlay(
  source: string,
  options: MountOptions,
  by: 'descriptors' | 'strings',
  open: OpenLayer,
): Promise<number> {
  using opened = new Descriptors();
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

/**
 * Checks what a mount by one string of options cannot do, or would report less precisely.
 *
 * @throws {SnapshotError} UNIMPLEMENTED if ids are to be mapped
 * @throws {SnapshotError} DATA_LOSS if a layer is missing
 */
function checkLayers(
  { uidMappings, gidMappings, lowers, data, upper, work }: MountOptions,
  open: OpenLayer,
): void {
  if (uidMappings !== undefined || gidMappings !== undefined) {
    throw new SnapshotError('UNIMPLEMENTED', 'this kernel cannot map the ids of the layers of an overlay', {
      hint: 'it takes Linux 6.13',
    });
  }
  for (const layer of [...lowers, ...data, ...[upper, work].filter((path) => path !== undefined)]) {
    closeSync(open(layer));
  }
}

/**
 * Mounts an overlay with mount(2), which takes all options as one string.
 *
 * @throws {SnapshotError} FAILED_PRECONDITION if the kernel would cut the string off
 * @throws {SnapshotError} as `checkLayers`
 */
export async function mountOverlayByString(
  source: string,
  given: readonly string[],
  options: MountOptions,
  target: string,
  open: OpenLayer,
): Promise<void> {
  checkLayers(options, open);
  const data = given.filter((option) => !isAttribute(option)).join(',');
  if (Buffer.byteLength(data) > MAX_STRING) throw tooLong(data);
  const flags = given.reduce((all, option) => all | (ATTRIBUTES.get(option)?.flag ?? 0), 0);
  await mountByString(source, target, 'overlay', flags, data);
}

/**
 * Mounts an overlay with the program mount(8). If the options are too long for it, the layers are given relative to the
 * directory that all of them are in.
 *
 * @throws {SnapshotError} FAILED_PRECONDITION if the options are still too long, or mount(8) fails
 * @throws {SnapshotError} as `checkLayers`
 */
export async function mountOverlayByCommand(
  source: string,
  given: readonly string[],
  options: MountOptions,
  target: string,
  open: OpenLayer,
): Promise<void> {
  checkLayers(options, open);
  const whole = given.join(',');
  // mount(8) treats quotes as syntax.
  const relative = Buffer.byteLength(whole) > MAX_STRING || whole.includes('"');
  const [cwd, text] = relative ? toRelative(given, options) : ['/', whole];
  if (Buffer.byteLength(text) > MAX_STRING) throw tooLong(text);
  // From version 2.39 on it otherwise uses fsconfig(2), which takes only short values.
  const env = { ...process.env, LIBMOUNT_FORCE_MOUNT2: 'always' };
  try {
    await run('mount', ['-t', 'overlay', '-o', text, '--', source, target], { cwd, env });
  } catch (error) {
    const { stderr = '' } = error as { stderr?: string };
    throw new SnapshotError('FAILED_PRECONDITION', `mounting an overlay: ${stderr.trim() || String(error)}`, {
      cause: error,
    });
  }
}

/**
 * Names layers relative to the directory that all of them are in. The first lower layer and the upper one keep their
 * paths, which tell later of which store the mount is, unless mount(8) cannot take these.
 *
 * @returns that directory, and the options
 */
function toRelative(given: readonly string[], { lowers: [first = ''] }: MountOptions): [string, string] {
  // Layers are at `snapshots/<id>/fs`.
  const directory = dirname(dirname(first));
  const escape = (pattern: RegExp): string => `${directory}/`.replace(pattern, '\\$&');
  const inLower = escape(/[\\:,]/g);
  const inUpper = escape(/[\\,]/g);
  const text = given
    .map((option) => {
      const [key = '', ...value] = option.split('=');
      if (!['lowerdir', 'upperdir', 'workdir'].includes(key)) return option;
      const path = value.join('=');
      if (!directory.includes('"')) return `${key}=${path.replaceAll(`:${inLower}`, ':')}`;
      return `${key}=${key === 'lowerdir' ? path.replaceAll(inLower, '') : path.replace(inUpper, '')}`;
    })
    .join(',');
  return [directory, text];
}

function isAttribute(option: string): boolean {
  return ATTRIBUTES.has(option) || option === 'rw';
}

function tooLong(text: string): SnapshotError {
  return new SnapshotError(
    'FAILED_PRECONDITION',
    `mount options of ${Buffer.byteLength(text)} bytes would be cut off at ${MAX_STRING}`,
    { hint: 'Linux 6.8 and later mount any number of layers; a shorter root helps too' },
  );
}
