import { constants, mkdirSync, mkdtempSync, openSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Descriptors } from './descriptors.ts';
import { errnoOf } from './errno.ts';
import { inUserNamespace } from './filesystem.ts';
import { beginFilesystem, createFilesystem, mountDetached, setFlag, setString } from './mount-calls.ts';
import { fdPath } from './tree-walk.ts';

/**
 * Whether some overlay mount has a directory for its upper or work directory: in any mount namespace, and also one that
 * was detached and lives on in open files. It creates an overlay that has the directory for a lower one, which the
 * kernel refuses with `index=on` if the directory is in use. Nothing is mounted and nothing in the directory changes.
 *
 * @returns `undefined` where this process may not ask, or this kernel cannot tell
 */
export async function isUpperInUse(directory: string): Promise<boolean | undefined> {
  // There the kernel ignores `index=on` without saying so.
  if (inUserNamespace()) return undefined;
  const ask = async ({ opened, create }: ScratchOverlay): Promise<boolean> => {
    const flags = constants.O_RDONLY | constants.O_DIRECTORY | constants.O_NOFOLLOW;
    const lower = opened.add(openSync(directory, flags));
    await create({ lowerdir: fdPath(lower), index: 'on' });
    return false;
  };
  try {
    if (await takesDetachedLayers()) return await withScratchOverlay(ask);
    for (const place of ['/dev/shm', tmpdir()]) {
      const isInUse = await withScratchOverlayIn(place, ask);
      if (isInUse !== undefined) return isInUse;
    }
    return undefined;
  } catch (error) {
    if (errnoOf(error) === 'EBUSY') return true;
    if (['EPERM', 'ENOSYS', 'EINVAL', 'ENODEV'].includes(errnoOf(error))) return undefined;
    throw error;
  }
}

let detachedLayers: Promise<boolean> | undefined;

/**
 * Whether layers of an overlay can be on detached mounts, as from Linux 6.15 on. Where this process may not ask, it is
 * taken to be so. The kernel is asked once, for it logs what it refuses.
 */
export function takesDetachedLayers(): Promise<boolean> {
  detachedLayers ??= withScratchOverlay(async ({ scratch, create }) => {
    mkdirSync(`${scratch}/lower`);
    await create({ lowerdir: `${scratch}/lower` });
    return true;
  }).catch((error: unknown) => {
    if (errnoOf(error) === 'EINVAL') return false;
    detachedLayers = undefined;
    return true;
  });
  return detachedLayers;
}

/**
 * Whether overlays need the option `userxattr` here, as they do in most user namespaces. It deletes a directory of a
 * lower layer and creates it again: without the option that fails, although the mount succeeds.
 */
export async function needsUserxattr(): Promise<boolean> {
  if (!inUserNamespace()) return false;
  try {
    return await withScratchOverlay(async ({ scratch, opened, create }) => {
      const lower = `${scratch}/lower`;
      mkdirSync(`${lower}/directory/inner`, { recursive: true });
      const overlay = await create({ lowerdir: lower });
      const mounted = fdPath(opened.add(mountDetached(overlay)));
      rmSync(`${mounted}/directory`, { recursive: true });
      mkdirSync(`${mounted}/directory`);
      return false;
    });
  } catch {
    return true;
  }
}

interface ScratchOverlay {
  /** A directory in memory. */
  readonly scratch: string;
  /** Descriptors to close afterwards. */
  readonly opened: Descriptors;
  /** Creates an overlay with more options, among them `lowerdir`. @returns its descriptor; it is not mounted */
  readonly create: (options: Readonly<Record<string, string>>) => Promise<number>;
}

/**
 * Runs `body` with what it takes to create an overlay whose upper and work directories are in memory: when an overlay
 * is given up, the kernel syncs the filesystem of its upper directory.
 */
async function withScratchOverlay<T>(body: (overlay: ScratchOverlay) => Promise<T>): Promise<T> {
  await using opened = new Descriptors();
  const memory = opened.add(beginFilesystem('tmpfs'));
  setString(memory, 'size', '1m');
  await createFilesystem(memory);
  const scratch = fdPath(opened.add(mountDetached(memory)));
  // Awaited here, or the descriptors would be closed meanwhile.
  return await body(inScratch(scratch, opened));
}

/**
 * The same as `withScratchOverlay`, with directories in a temporary directory of `place`. The kernel gives up a volatile
 * overlay without a sync.
 *
 * @returns `undefined` if no directory can be made there
 */
async function withScratchOverlayIn<T>(
  place: string,
  body: (overlay: ScratchOverlay) => Promise<T>,
): Promise<T | undefined> {
  let scratch: string;
  try {
    scratch = mkdtempSync(join(place, 'overlite-probe-'));
  } catch {
    return undefined;
  }
  try {
    await using opened = new Descriptors();
    return await body(inScratch(scratch, opened, 'volatile'));
  } finally {
    rmSync(scratch, { recursive: true, force: true });
  }
}

function inScratch(scratch: string, opened: Descriptors, ...flags: readonly string[]): ScratchOverlay {
  const upperAndWork = { upperdir: `${scratch}/upper`, workdir: `${scratch}/work` };
  for (const directory of Object.values(upperAndWork)) mkdirSync(directory);
  const create = async (options: Readonly<Record<string, string>>): Promise<number> => {
    const overlay = opened.add(beginFilesystem('overlay'));
    for (const [key, value] of Object.entries({ ...upperAndWork, ...options }))
      setString(overlay, key, value);
    for (const flag of flags) setFlag(overlay, flag);
    await createFilesystem(overlay);
    return overlay;
  };
  return { scratch, opened, create };
}
