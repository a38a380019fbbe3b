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
import { fdPath } from '../linux/tree.ts';
import { quote } from '../quote.ts';
import { withMappedIds } from './idmap.ts';
import { openLayer } from './layer.ts';
import { ATTRIBUTES, type MountOptions, READ_ONLY } from './options.ts';

const run = promisify(execFile);

/** The longest option string that mount(2) takes: of a longer one it cuts the rest off and mounts other layers. */
const MAX_STRING = 4095;

/** The longest value that a string of the new calls has. */
const MAX_VALUE = 255;

/** Looks that an overlay which is to be written to can be: with a damaged work directory it comes up read-only. */
export function checkWritable(path: string, { upper, attributes }: MountOptions): void {
  if (upper === undefined || (attributes & READ_ONLY) !== 0) return;
  try {
    accessSync(path, constants.W_OK);
  } catch (error) {
    if (errnoOf(error) !== 'EROFS') return;
    throw new SnapshotError('FAILED_PRECONDITION', `the overlay of ${quote(upper)} can only be read`, {
      hint: 'something in its work directory is in the way; the kernel log (dmesg) says what',
      cause: error,
    });
  }
}

/**
 * Makes an overlay layer by layer, mounted nowhere but on the descriptor that is returned.
 *
 * @throws {SnapshotError} DATA_LOSS if a layer is missing
 */
export async function openOverlay(
  source: string,
  options: MountOptions,
  by: 'descriptors' | 'strings',
): Promise<number> {
  using opened = new Descriptors();
  return await withMappedIds(options, async (map) => {
    const context = opened.add(beginFilesystem('overlay'));
    setString(context, 'source', source);
    const setLayer = (key: string, path: string, mapped: boolean): void => {
      const directory = opened.add(openLayer(path));
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

/** A layer as a string: by its path, which then can be seen in mountinfo, unless that is too long. */
function toValue(key: string, path: string | undefined, fd: number): string {
  const escaped = key.endsWith('+') ? path : path?.replaceAll('\\', '\\\\');
  return escaped === undefined || Buffer.byteLength(escaped) > MAX_VALUE ? fdPath(fd) : escaped;
}

/** Looks that no layer is missing, which the calls below would only say in general. */
function checkLayers({ lowers, data, upper, work }: MountOptions): void {
  for (const layer of [...lowers, ...data, ...[upper, work].filter((path) => path !== undefined)]) {
    closeSync(openLayer(layer));
  }
}

/**
 * Mounts an overlay by one string.
 *
 * @throws {SnapshotError} FAILED_PRECONDITION if the string would be cut off
 */
export async function mountOverlayByString(
  source: string,
  given: readonly string[],
  options: MountOptions,
  target: string,
): Promise<void> {
  checkPlain(options);
  checkLayers(options);
  const data = given.filter((option) => !isAttribute(option)).join(',');
  if (Buffer.byteLength(data) > MAX_STRING) throw tooLong(data);
  const flags = given.reduce((all, option) => all | (ATTRIBUTES.get(option)?.flag ?? 0), 0);
  await mountByString(source, target, 'overlay', flags, data);
}

/**
 * Mounts an overlay by the program mount(8). Options that it would not take are shortened by naming the layers from
 * the directory that they are all in.
 *
 * @throws {SnapshotError} FAILED_PRECONDITION if they are too long even so
 */
export async function mountOverlayByCommand(
  source: string,
  given: readonly string[],
  options: MountOptions,
  target: string,
): Promise<void> {
  checkPlain(options);
  checkLayers(options);
  const whole = given.join(',');
  // It takes quotes for its own.
  const shorten = Buffer.byteLength(whole) > MAX_STRING || whole.includes('"');
  const [cwd, text] = shorten ? shortened(given, options) : ['/', whole];
  if (Buffer.byteLength(text) > MAX_STRING) throw tooLong(text);
  // From version 2.39 on it would else use the new calls, in which a string has 255 bytes.
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

function shortened(given: readonly string[], { lowers: [lower = ''] }: MountOptions): [string, string] {
  // Layers are at `snapshots/<id>/fs`.
  const directory = dirname(dirname(lower));
  const escape = (text: string, pattern: RegExp): string => text.replace(pattern, '\\$&');
  const prefixes = [escape(`${directory}/`, /[\\:,]/g), escape(`${directory}/`, /[\\,]/g)];
  const text = given
    .map((option) => {
      const [key = '', ...value] = option.split('=');
      if (!['lowerdir', 'upperdir', 'workdir'].includes(key)) return option;
      const [inLower = '', inUpper = ''] = prefixes;
      const path = value.join('=');
      return `${key}=${key === 'lowerdir' ? path.replaceAll(inLower, '') : path.replace(inUpper, '')}`;
    })
    .join(',');
  return [directory, text];
}

function checkPlain({ uidMappings, gidMappings }: MountOptions): void {
  if (uidMappings === undefined && gidMappings === undefined) return;
  throw new SnapshotError('UNIMPLEMENTED', 'this kernel cannot map the ids of the layers of an overlay', {
    hint: 'it takes Linux 6.13',
  });
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
