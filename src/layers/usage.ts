import { type SliceOptions, inSlices } from '../linux/slices.ts';
import { isDirectory } from '../linux/file-status.ts';
import type { TreeEntry, TreeWalk } from '../linux/tree-walk.ts';
import type { Usage } from '../snapshot.ts';

/** Adds up the usage of a layer. */
export class Meter {
  #entries = 0;
  #inodes = 0;
  #blocks = 0;
  #processed = 0;
  readonly #linked = new Set<string>();

  add({ status }: TreeEntry): void {
    this.#processed = 0;
    this.#entries += 1;
    if (status.links > 1 && !isDirectory(status.mode)) {
      const { birthKey } = status;
      if (this.#linked.has(birthKey)) return;
      this.#linked.add(birthKey);
    }
    this.#inodes += 1;
    this.#blocks += status.blocks;
  }

  /** Sets how many bytes of the next file have been processed. */
  advance(bytes: number): void {
    this.#processed = bytes;
  }

  /** How many entries were added; a file with several names counts once for each. */
  get entries(): number {
    return this.#entries;
  }

  get usage(): Usage {
    return { inodes: this.#inodes, size: this.#blocks * 512 };
  }

  /** The bytes on disk of what was added so far, and those of the next file that have been processed. */
  get bytes(): number {
    return this.#blocks * 512 + this.#processed;
  }
}

/** Measures the usage of a layer, in slices of time. */
export async function measureUsage(layer: TreeWalk, options?: SliceOptions): Promise<Usage> {
  const meter = new Meter();
  await inSlices(layer, (entry) => meter.add(entry), options);
  return meter.usage;
}
