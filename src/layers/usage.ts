import { type SliceOptions, inSlices } from '../linux/slices.ts';
import { isDirectory } from '../linux/status.ts';
import type { TreeEntry, TreeWalk } from '../linux/tree.ts';
import type { Usage } from '../snapshot.ts';

/** Adds up what a layer holds. */
export class Meter {
  #entries = 0;
  #inodes = 0;
  #blocks = 0;
  #underWay = 0;
  readonly #linked = new Set<bigint>();

  add({ status }: TreeEntry): void {
    this.#underWay = 0;
    this.#entries += 1;
    if (status.links > 1 && !isDirectory(status.mode)) {
      if (this.#linked.has(status.inode)) return;
      this.#linked.add(status.inode);
    }
    this.#inodes += 1;
    this.#blocks += status.blocks;
  }

  /** Says how many bytes of the next file have been dealt with. */
  advance(bytes: number): void {
    this.#underWay = bytes;
  }

  /** How many entries were added; a file with several names counts once for each. */
  get entries(): number {
    return this.#entries;
  }

  get usage(): Usage {
    return { inodes: this.#inodes, size: this.#blocks * 512 };
  }

  /** What was added so far, in bytes on disk, and of the next file what has been dealt with. */
  get bytes(): number {
    return this.#blocks * 512 + this.#underWay;
  }
}

/** Measures what a layer holds, without holding the event loop for long. */
export async function measureUsage(layer: TreeWalk, watch?: SliceOptions): Promise<Usage> {
  const meter = new Meter();
  await inSlices(layer, (entry) => meter.add(entry), watch);
  return meter.usage;
}
