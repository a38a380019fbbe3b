import type { OverlayDriver } from '../../src/index.ts';
import { sh } from './tree.ts';

/** The path of the layer of a snapshot. */
export async function layerOf(driver: OverlayDriver, keyOrName: string): Promise<string> {
  return `${(await driver.stat(keyOrName)).directory}/fs`;
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
