import { closeSync, constants, openSync } from 'node:fs';
import { mkdtemp, rmdir } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { setImmediate as nextTurn, setTimeout as sleep } from 'node:timers/promises';
import pLimit from 'p-limit';
import { SnapshotError } from '../errors.ts';
import { errnoOf, isGone } from '../linux/errno.ts';
import { close } from '../linux/fs-promises.ts';
import { attachMount, unmountTop } from '../linux/mount-calls.ts';
import { O_PATH } from '../linux/foreign.ts';
import { FileStatus } from '../linux/status.ts';
import { fdPath } from '../linux/tree.ts';
import { kindOf } from '../arguments.ts';
import { quote } from '../quote.ts';
import type { DetachedMount, Mount, MountCallOptions, MountMethod } from '../snapshot.ts';
import { openBind } from './bind.ts';
import { toMountError } from './mount-error.ts';
import { bestMethod } from './method.ts';
import { type MountOptions, parseOptions } from './options.ts';
import { checkWritable, mountOverlayByCommand, mountOverlayByString, openOverlay } from './overlay.ts';

/** How long an unmount waits for what still uses the mount, in milliseconds. */
const PATIENCE_MS = 2000;

/** A few mounts are made at a time: libuv has four threads for what the kernel does meanwhile. */
const limit = pLimit(4);

/** Runs `body` in a turn of its own, so that hundreds of mounts that begin together do not hold the event loop. */
function inTurn<T>(body: () => Promise<T>): Promise<T> {
  return limit(async () => {
    await nextTurn();
    return body();
  });
}

/**
 * Mounts what a snapshotter's `mounts` told, on a directory on which nothing is mounted yet.
 *
 * @throws {TypeError} if an argument is of a wrong type
 * @throws {SnapshotError} FAILED_PRECONDITION if the target is not there, no directory, a symbolic link or a mount
 *   already, or the kernel refuses, with its own words
 * @throws {SnapshotError} DATA_LOSS if a layer is missing
 * @throws {SnapshotError} PERMISSION_DENIED if this process may not mount
 */
export async function mount(
  mounts: readonly Mount[],
  target: string,
  { by = bestMethod() }: MountCallOptions = {},
): Promise<void> {
  const path = toTarget(target);
  const wanted = checkMounts(mounts);
  closeSync(openTarget(path));
  let done = 0;
  try {
    for (const one of wanted) {
      await inTurn(() => mountOne(one, path, by));
      done += 1;
    }
  } catch (error) {
    while (done-- > 0) await unmountTop(path, { detach: true }).catch(() => {});
    throw toMountError(error, `mounting on ${quote(path)}`);
  }
}

/**
 * Undoes the topmost mount on a directory. What uses it gets a moment to end; with `lazy`, it may go on, and the mount
 * is only taken out of the file tree.
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
 * Mounts on a temporary directory for as long as `fn` runs, and always undoes it: what still uses the mount then keeps
 * it to itself.
 *
 * @returns what `fn` returns
 * @throws as `mount`, or what `fn` throws
 */
export async function withMount<T>(
  mounts: readonly Mount[],
  fn: (target: string) => T | Promise<T>,
  options?: MountCallOptions,
): Promise<T> {
  if (typeof fn !== 'function') throw new TypeError(`a mount needs a function, not ${kindOf(fn)}`);
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
 * Mounts on a descriptor alone: nobody else finds it, and it is gone at the latest when the processes that hold it
 * have ended, however they end.
 *
 * @throws as `mount`
 * @throws {SnapshotError} UNIMPLEMENTED if this kernel cannot do that
 */
export async function openMount(
  mounts: readonly Mount[],
  { by = bestMethod() }: MountCallOptions = {},
): Promise<DetachedMount> {
  const [one, ...others] = checkMounts(mounts);
  if (one === undefined || others.length > 0) {
    throw new SnapshotError('INVALID_ARGUMENT', `one mount is opened at a time, not ${mounts.length}`);
  }
  let fd: number | undefined;
  try {
    fd = await inTurn(() => openOne(one, by));
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

interface Wanted {
  readonly given: Mount;
  readonly options: MountOptions;
}

async function mountOne(wanted: Wanted, target: string, by: MountMethod): Promise<void> {
  const { given, options } = wanted;
  if (given.type === 'overlay' && (by === 'mount(2)' || by === 'mount(8)')) {
    const mountBy = by === 'mount(2)' ? mountOverlayByString : mountOverlayByCommand;
    await mountBy(given.source, given.options, options, target);
    try {
      checkWritable(target, options);
    } catch (error) {
      await unmountTop(target, { detach: true });
      throw error;
    }
    return;
  }
  const fd = await openOne(wanted, by);
  try {
    const directory = openTarget(target, { again: true });
    try {
      attachMount(fd, directory);
    } finally {
      closeSync(directory);
    }
  } catch (error) {
    // The last of a mount: the kernel syncs what was written to it.
    await close(fd);
    throw error;
  }
  closeSync(fd);
}

async function openOne({ given, options }: Wanted, by: MountMethod): Promise<number> {
  if (given.type === 'bind') return openBind(given.source, options);
  if (by === 'descriptors' || by === 'strings') return openOverlay(given.source, options, by);
  throw new SnapshotError('UNIMPLEMENTED', `${by} cannot mount on a descriptor alone`, {
    hint: 'it takes Linux 6.8',
  });
}

function toTarget(target: unknown): string {
  if (typeof target !== 'string') throw new TypeError(`the target must be a string, not ${kindOf(target)}`);
  if (target === '' || target.includes('\0')) {
    throw new SnapshotError('INVALID_ARGUMENT', `the target ${quote(target)} is not a path`);
  }
  return resolve(target);
}

function checkMounts(mounts: readonly Mount[]): Wanted[] {
  if (!Array.isArray(mounts)) throw new TypeError(`mounts must be an array, not ${kindOf(mounts)}`);
  return mounts.map((given: Mount) => {
    const { type, source, options } = given;
    if (type !== 'bind' && type !== 'overlay') {
      throw new SnapshotError(
        'INVALID_ARGUMENT',
        `a mount is of type "bind" or "overlay", not ${quote(String(type))}`,
      );
    }
    if (typeof source !== 'string') throw new TypeError(`a source must be a string, not ${kindOf(source)}`);
    if (!Array.isArray(options) || options.some((option) => typeof option !== 'string')) {
      throw new TypeError('the options of a mount must be an array of strings');
    }
    return { given, options: parseOptions(options) };
  });
}

/** Opens the directory to mount on, which must be one, and unless it is so `again`, have nothing mounted on it. */
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
        hint: 'make it first; a symbolic link is not followed',
        cause: error,
      },
    );
  }
  const status = new FileStatus();
  status.readOpen(fd);
  if (again || !status.isMountRoot) return fd;
  closeSync(fd);
  throw new SnapshotError('FAILED_PRECONDITION', `something is mounted on ${quote(path)} already`);
}

function notMounted(error: unknown, path: string): Error {
  if (errnoOf(error) === 'EINVAL' || isGone(error)) {
    return new SnapshotError('FAILED_PRECONDITION', `nothing is mounted on ${quote(path)}`, { cause: error });
  }
  return toMountError(error, `unmounting ${quote(path)}`);
}
