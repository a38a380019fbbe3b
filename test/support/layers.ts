import { readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Change, DiffOptions, Mount, OverlayDriver } from '../../src/index.ts';
import { sh } from './tree.ts';

/** The path of the layer of a snapshot. */
export async function layerOf(driver: OverlayDriver, keyOrName: string): Promise<string> {
  return `${(await driver.stat(keyOrName)).directory}/fs`;
}

/** The names of the directories in `snapshots/` of a store, which are ids. */
export function idsOnDisk(root: string): string[] {
  return readdirSync(join(root, 'snapshots')).toSorted();
}

/** Commits a snapshot, after running a script in its layer. */
export async function commitLayer(
  driver: OverlayDriver,
  name: string,
  parent: string | null = null,
  script = 'echo base > file; mkdir d; echo x > d/x',
): Promise<void> {
  const key = `making ${name}`;
  await driver.prepare(key, parent);
  sh(script, await layerOf(driver, key));
  await driver.commit(name, key);
}

/**
 * Commits layers on one another, `layer-1` and on, each with a file of its own, `own-1` and on, and its number in the
 * file `shared`; then prepares `top` on the last.
 *
 * @returns the mounts of `top`
 */
export function prepareOnLayers(driver: OverlayDriver, count: number): Promise<Mount[]> {
  return driver.transaction((tx) => {
    let parent: string | null = null;
    for (let number = 1; number <= count; number += 1) {
      tx.prepare('making a layer', parent);
      const { directory } = tx.stat('making a layer');
      for (const name of [`own-${number}`, 'shared']) writeFileSync(`${directory}/fs/${name}`, `${number}`);
      parent = `layer-${number}`;
      tx.commit(parent, 'making a layer');
    }
    return tx.prepare('top', parent);
  });
}

/** All changes that a comparison finds. */
export async function changesOf(
  driver: OverlayDriver,
  keyOrName: string,
  options?: DiffOptions,
): Promise<Change[]> {
  const changes: Change[] = [];
  for await (const change of driver.diff(keyOrName, options)) changes.push(change);
  return changes;
}
