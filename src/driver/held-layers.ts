import type { HeldRoot } from '../layers/held-root.ts';
import { type OpenLayer, orLost } from '../mount/layer.ts';

/**
 * Gives a function that opens the directories in the mounts of a store: below the held root, not by their paths. It also
 * checks that the path leads to the root, since some ways to mount use that.
 */
export function openLayersOf(held: HeldRoot): OpenLayer {
  const { layout } = held;
  return (path) => {
    const id = layout.idOf(path);
    if (id === undefined) throw new Error(`${path} is not in the store`);
    held.checkPlace();
    return orLost(path, () => held.open(id, path === layout.work(id) ? 'work' : 'fs'));
  };
}
