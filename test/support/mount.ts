import { execFileSync, spawnSync } from 'node:child_process';
import { mkdtemp, rmdir } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import type { Mount, MountMethod } from '../../src/snapshot.ts';
import { MOUNT_METHODS, bestMethod } from '../../src/mount/method.ts';

/** The longest option string that the kernel takes without cutting it off. */
const MAX_OPTIONS = 4095;

/** The methods that this kernel has to mount overlays. */
export const methodsHere: readonly MountMethod[] = MOUNT_METHODS.slice(MOUNT_METHODS.indexOf(bestMethod()));

/** Mounts by mount(8). Options that are too long are made relative to the directory of the snapshots. */
export function mount(mounts: readonly Mount[], target: string): void {
  for (const { type, source, options } of mounts) {
    let text = options.join(',');
    let cwd = '/';
    if (text.length >= MAX_OPTIONS) {
      const [, layer = ''] = /lowerdir=([^:,]+)/.exec(text) ?? [];
      cwd = dirname(dirname(layer));
      text = text.replaceAll(`${cwd}/`, '');
    }
    if (text.length >= MAX_OPTIONS) throw new Error(`mount options of ${text.length} bytes would be cut off`);
    execFileSync('mount', ['-t', type, source, target, '-o', text], { cwd, stdio: 'pipe' });
  }
}

/** Undoes a mount. */
export function unmount(target: string): void {
  execFileSync('umount', [target], { stdio: 'pipe' });
}

/** Whether something is mounted on a directory. */
export function isMountPoint(target: string): boolean {
  return spawnSync('mountpoint', ['-q', target]).status === 0;
}

/** Mounts on a directory of its own for as long as `fn` runs. */
export async function withMount(
  mounts: readonly Mount[],
  fn: (target: string) => Promise<void>,
): Promise<void> {
  const target = await mkdtemp(join(tmpdir(), 'overlite-mount-'));
  try {
    mount(mounts, target);
    try {
      await fn(target);
    } finally {
      unmount(target);
    }
  } finally {
    await rmdir(target);
  }
}
