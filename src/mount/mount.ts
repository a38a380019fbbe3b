import { closeSync, constants, openSync } from 'node:fs';
import { mkdtemp, rmdir } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { setImmediate as nextTurn, setTimeout as sleep } from 'node:timers/promises';
import pLimit from 'p-limit';
import { SnapshotError, wrongType } from '../errors.ts';
import { errnoOf, isGone } from '../linux/errno.ts';
import { close } from '../linux/fs-promises.ts';
import { attachMount, unmountTop } from '../linux/mount-calls.ts';
import { O_PATH } from '../linux/foreign.ts';
import { FileStatus } from '../linux/file-status.ts';
import { fdPath } from '../linux/tree-walk.ts';
import { kindOf } from '../arguments.ts';
import { quote } from '../quote.ts';
import type { DetachedMount, Mount, MountCallOptions, MountMethod } from '../snapshot.ts';
import { openBind } from './bind.ts';
import { type OpenLayer, openLayer } from './layer.ts';
import { toMountError } from './mount-error.ts';
import { detachOverlay } from './detach.ts';
import { bestMethod, checkMethod } from './method.ts';
import { type MountOptions, parseOptions } from './options.ts';
import { fitsMount2, mountByPath, toOverlayByPath } from './overlay-by-path.ts';
import { checkWritable, openOverlay } from './overlay.ts';

/** How long an unmount waits for what still uses the mount, in milliseconds. */
const PATIENCE_MS = 2000;

/** How many mounts are made at a time: libuv has four threads for the calls that take long. */
const limit = pLimit(4);

/** Runs `body` in a turn of its own, so that hundreds of mounts that begin together do not block the event loop. */
function inTurn<T>(body: () => Promise<T>): Promise<T> {
  return limit(async () => {
    await nextTurn();
    return body();
  });
}

/**
 * Mounts what `mounts` of a snapshotter returned on a directory on which nothing is mounted yet.
 *
 * @throws {TypeError} if an argument is of a wrong type
 * @throws {SnapshotError} INVALID_ARGUMENT if a mount or the target is not valid
 * @throws {SnapshotError} FAILED_PRECONDITION if the target is missing, a symbolic link, not a directory or a mount
 *   already; or if the kernel refuses, in which case the message has its words
 * @throws {SnapshotError} DATA_LOSS if a layer is missing
 * @throws {SnapshotError} PERMISSION_DENIED if this process may not mount
 * @throws {SnapshotError} UNIMPLEMENTED if the kernel does not have the method that was asked for
 */
export async function mount(
  mounts: readonly Mount[],
  target: string,
  options: MountCallOptions = {},
): Promise<void> {
  await mountOf(openLayer, mounts, target, options);
}

/** The same for directories that `open` opens: right before they are mounted, where that is by path. */
export async function mountOf(
  open: OpenLayer,
  mounts: readonly Mount[],
  target: string,
  { by }: MountCallOptions = {},
): Promise<void> {
  const path = toTarget(target);
  const parsed = parseMounts(mounts);
  closeSync(openTarget(path));
  let done = 0;
  try {
    for (const one of parsed) {
      await inTurn(() => mountOne(one, path, by, open));
      done += 1;
    }
  } catch (error) {
    while (done-- > 0) await unmountTop(path, { detach: true }).catch(() => {});
    throw toMountError(error, `mounting on ${quote(path)}`);
  }
}

/**
 * Undoes the topmost mount on a directory. Waits two seconds for what still uses it; with `lazy` (default: false),
 * takes it out of the file tree at once, and what uses it can go on.
 *
 * @throws {SnapshotError} FAILED_PRECONDITION if nothing is mounted there, or it is in use
 * @throws {SnapshotError} PERMISSION_DENIED if this process may not unmount
 */
export async function unmount(target: string, { lazy = false }: { lazy?: boolean } = {}): Promise<void> {
  const path = toTarget(target);
  const until = performance.now() + PATIENCE_MS;
  for (;;) {
    try {
      await unmountTop(path, { detach: lazy });
      return;
    } catch (error) {
      if (errnoOf(error) !== 'EBUSY' || performance.now() > until) throw notMounted(error, path);
    }
    await sleep(20);
  }
}

/**
 * Mounts on a temporary directory while `fn` runs. The mount is undone in any case; what still uses it then can go on.
 *
 * @returns what `fn` returns
 * @throws as `mount`, or what `fn` throws
 */
export async function withMount<T>(
  mounts: readonly Mount[],
  fn: (target: string) => T | Promise<T>,
  options?: MountCallOptions,
): Promise<T> {
  if (typeof fn !== 'function') throw wrongType(`a mount needs a function, not ${kindOf(fn)}`);
  const target = await mkdtemp(join(tmpdir(), 'overlite-'));
  try {
    await mount(mounts, target, options);
    try {
      return await fn(target);
    } finally {
      await unmount(target).catch(() => unmount(target, { lazy: true }));
    }
  } finally {
    await rmdir(target);
  }
}

/**
 * Mounts on a file descriptor only: the mount appears in no mount table, and it ends at the latest with the last
 * process that holds it.
 *
 * @throws {SnapshotError} as `mount`
 */
export async function openMount(
  mounts: readonly Mount[],
  options: MountCallOptions = {},
): Promise<DetachedMount> {
  return openMountOf(openLayer, mounts, options);
}

/** The same for directories that `open` opens. */
export async function openMountOf(
  open: OpenLayer,
  mounts: readonly Mount[],
  { by }: MountCallOptions = {},
): Promise<DetachedMount> {
  const [one, ...others] = parseMounts(mounts);
  if (one === undefined || others.length > 0) {
    throw new SnapshotError('INVALID_ARGUMENT', `one mount is opened at a time, not ${mounts.length}`);
  }
  let fd: number | undefined;
  try {
    fd = await inTurn(() => openOne(one, by, open));
  } catch (error) {
    throw toMountError(error, 'mounting');
  }
  const held = fd;
  const undo = async (): Promise<void> => {
    if (fd === undefined) return;
    fd = undefined;
    await close(held);
  };
  return { fd: held, path: fdPath(held), close: undo, [Symbol.asyncDispose]: undo };
}

/** A mount with its options parsed. */
interface ParsedMount {
  readonly given: Mount;
  readonly options: MountOptions;
}

async function mountOne(
  parsed: ParsedMount,
  target: string,
  by: MountMethod | undefined,
  open: OpenLayer,
): Promise<void> {
  const { given, options } = parsed;
  const method = methodFor(parsed, by);
  if (given.type === 'overlay' && isByPath(method)) {
    await mountByPath(toOverlayByPath(method, given.source, given.options, options, open), target);
    try {
      checkWritable(target, options);
    } catch (error) {
      await unmountTop(target, { detach: true });
      throw error;
    }
    return;
  }
  const fd = await openOne(parsed, by, open);
  try {
    const directory = openTarget(target, { again: true });
    try {
      attachMount(fd, directory);
    } finally {
      closeSync(directory);
    }
  } catch (error) {
    // This ends the mount, and the kernel syncs its filesystem, so it is done on another thread.
    await close(fd);
    throw error;
  }
  closeSync(fd);
}

async function openOne(parsed: ParsedMount, by: MountMethod | undefined, open: OpenLayer): Promise<number> {
  const { given, options } = parsed;
  if (given.type === 'bind') return openBind(given.source, options, open);
  const method = methodFor(parsed, by);
  if (!isByPath(method)) return openOverlay(given.source, options, method, open);
  const overlay = toOverlayByPath(method, given.source, given.options, options, open);
  // Any directory will do for the place: a layer is one that is there.
  const fd = await detachOverlay({ overlay, place: options.lowers[0] ?? '/' });
  try {
    checkWritable(fdPath(fd), options);
    return fd;
  } catch (error) {
    await close(fd);
    throw error;
  }
}

function isByPath(method: MountMethod): method is 'mount(2)' | 'mount(8)' {
  return method === 'mount(2)' || method === 'mount(8)';
}

/**
 * The method that was asked for, or the best one for this mount: mount(2) takes fewer layers than mount(8).
 *
 * @throws {SnapshotError} UNIMPLEMENTED if the kernel does not have the method that was asked for
 */
function methodFor({ given }: ParsedMount, by: MountMethod | undefined): MountMethod {
  if (by !== undefined) {
    checkMethod(by);
    return by;
  }
  const best = bestMethod();
  return best === 'mount(2)' && !fitsMount2(given.options) ? 'mount(8)' : best;
}

function toTarget(target: unknown): string {
  if (typeof target !== 'string') throw wrongType(`the target must be a string, not ${kindOf(target)}`);
  if (target === '' || target.includes('\0')) {
    throw new SnapshotError('INVALID_ARGUMENT', `the target ${quote(target)} is not a path`);
  }
  return resolve(target);
}

function parseMounts(mounts: readonly Mount[]): ParsedMount[] {
  if (!Array.isArray(mounts)) throw wrongType(`mounts must be an array, not ${kindOf(mounts)}`);
  return mounts.map((given: Mount) => {
    const { type, source, options } = given;
    if (type !== 'bind' && type !== 'overlay') {
      throw new SnapshotError(
        'INVALID_ARGUMENT',
        `a mount is of type "bind" or "overlay", not ${quote(String(type))}`,
      );
    }
    if (typeof source !== 'string') throw wrongType(`a source must be a string, not ${kindOf(source)}`);
    if (!Array.isArray(options) || options.some((option) => typeof option !== 'string')) {
      throw wrongType('the options of a mount must be an array of strings');
    }
    return { given, options: parseOptions(options) };
  });
}

/**
 * Opens the directory to mount on.
 *
 * @throws {SnapshotError} FAILED_PRECONDITION if it is missing or not a directory; or, unless it is opened `again`, if
 *   something is mounted on it
 */
function openTarget(path: string, { again = false } = {}): number {
  let fd: number;
  try {
    fd = openSync(path, O_PATH | constants.O_DIRECTORY | constants.O_NOFOLLOW);
  } catch (error) {
    if (!isGone(error)) throw toMountError(error, `mounting on ${quote(path)}`);
    throw new SnapshotError(
      'FAILED_PRECONDITION',
      `the target ${quote(path)} is missing or not a directory`,
      {
        hint: 'create it first; symbolic links are not followed',
        cause: error,
      },
    );
  }
  const status = new FileStatus();
  status.readOpen(fd);
  if (again || !status.isMountRoot) return fd;
  closeSync(fd);
  throw new SnapshotError('FAILED_PRECONDITION', `something is already mounted on ${quote(path)}`);
}

function notMounted(error: unknown, path: string): Error {
  if (errnoOf(error) === 'EINVAL' || isGone(error)) {
    return new SnapshotError('FAILED_PRECONDITION', `nothing is mounted on ${quote(path)}`, { cause: error });
  }
  return toMountError(error, `unmounting ${quote(path)}`);
}
