import { execFile, execFileSync } from 'node:child_process';
import { closeSync } from 'node:fs';
import { dirname } from 'node:path';
import { promisify } from 'node:util';
import { SnapshotError } from '../errors.ts';
import { mountByString, mountByStringSync } from '../linux/mount-calls.ts';
import { cannotMapIds } from './idmap.ts';
import type { OpenLayer } from './layer.ts';
import { ATTRIBUTES, type MountOptions } from './options.ts';

/** The longest options that mount(2) takes, in bytes. It cuts longer ones off, and so would mount fewer layers. */
const MAX_STRING = 4095;

/** An overlay that is to be mounted by the paths of its layers: plain data, which can be sent to a thread. */
export type OverlayByPath =
  | { readonly by: 'mount(2)'; readonly source: string; readonly flags: number; readonly data: string }
  | { readonly by: 'mount(8)'; readonly source: string; readonly cwd: string; readonly options: string };

/** Whether the options of an overlay fit into what mount(2) takes. */
export function fitsMount2(given: readonly string[]): boolean {
  return Buffer.byteLength(toData(given)) <= MAX_STRING;
}

/**
 * Says how an overlay is mounted by mount(2), which takes all options as one string; or by the program mount(8). If the
 * options are too long for that, the layers are given relative to the directory that all of them are in.
 *
 * @throws {SnapshotError} UNIMPLEMENTED if ids are to be mapped
 * @throws {SnapshotError} DATA_LOSS if a layer is missing
 * @throws {SnapshotError} FAILED_PRECONDITION if the kernel would cut the options off
 */
export function toOverlayByPath(
  by: OverlayByPath['by'],
  source: string,
  given: readonly string[],
  options: MountOptions,
  open: OpenLayer,
): OverlayByPath {
  checkLayers(options, open);
  if (by === 'mount(2)') {
    const data = toData(given);
    if (!fitsMount2(given)) throw tooLong(data);
    const flags = given.reduce((all, option) => all | (ATTRIBUTES.get(option)?.flag ?? 0), 0);
    return { by, source, flags, data };
  }
  const whole = given.join(',');
  // mount(8) treats quotes as syntax.
  const relative = Buffer.byteLength(whole) > MAX_STRING || whole.includes('"');
  const [cwd, text] = relative ? toRelative(given, options) : ['/', whole];
  if (Buffer.byteLength(text) > MAX_STRING) throw tooLong(text);
  return { by, source, cwd, options: text };
}

/**
 * Mounts an overlay on a directory, without blocking the event loop.
 *
 * @throws a system error, or {SnapshotError} FAILED_PRECONDITION if mount(8) fails
 */
export async function mountByPath(overlay: OverlayByPath, target: string): Promise<void> {
  if (overlay.by === 'mount(2)') {
    await mountByString(overlay.source, target, 'overlay', overlay.flags, overlay.data);
    return;
  }
  try {
    await promisify(execFile)(...commandOf(overlay, target));
  } catch (error) {
    throw commandFailed(error);
  }
}

/** The same, on this thread. */
export function mountByPathSync(overlay: OverlayByPath, target: string): void {
  if (overlay.by === 'mount(2)') {
    mountByStringSync(overlay.source, target, 'overlay', overlay.flags, overlay.data);
    return;
  }
  try {
    const [file, args, options] = commandOf(overlay, target);
    execFileSync(file, args, { ...options, stdio: 'pipe' });
  } catch (error) {
    throw commandFailed(error);
  }
}

function commandOf(
  { source, cwd, options }: Extract<OverlayByPath, { by: 'mount(8)' }>,
  target: string,
): [file: string, args: string[], options: { cwd: string; env: NodeJS.ProcessEnv }] {
  // From version 2.39 on it otherwise uses fsconfig(2), which takes only short values.
  const env = { ...process.env, LIBMOUNT_FORCE_MOUNT2: 'always' };
  return ['mount', ['-t', 'overlay', '-o', options, '--', source, target], { cwd, env }];
}

function commandFailed(error: unknown): SnapshotError {
  const { stderr = '' } = error as { stderr?: string | Buffer };
  return new SnapshotError(
    'FAILED_PRECONDITION',
    `mounting an overlay: ${String(stderr).trim() || String(error)}`,
    { cause: error },
  );
}

/** Checks what a mount by paths cannot do, or would report less precisely. */
function checkLayers(
  { uidMappings, gidMappings, lowers, data, upper, work }: MountOptions,
  open: OpenLayer,
): void {
  if (uidMappings !== undefined || gidMappings !== undefined) throw cannotMapIds();
  for (const layer of [...lowers, ...data, ...[upper, work].filter((path) => path !== undefined)]) {
    closeSync(open(layer));
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

/** The options of the filesystem, as mount(2) takes them. */
function toData(given: readonly string[]): string {
  return given.filter((option) => !ATTRIBUTES.has(option) && option !== 'rw').join(',');
}

function tooLong(text: string): SnapshotError {
  return new SnapshotError(
    'FAILED_PRECONDITION',
    `mount options of ${Buffer.byteLength(text)} bytes would be cut off at ${MAX_STRING}`,
    { hint: 'Linux 6.8 and later mount any number of layers; a shorter root helps too' },
  );
}
