import { createHash } from 'node:crypto';
import { constants, readlinkSync } from 'node:fs';
import { cString, readXattrs } from '../linux/libc.ts';
import { type TreeEntry, errnoOf, inSlices, isDirectory, walkTree } from '../linux/tree.ts';
import type { Usage } from '../snapshot.ts';

/** What a walk over a layer found: what it holds, and the digest over it. */
export interface Measure {
  readonly usage: Usage;
  /** `metadata1:` and a SHA-256 in hexadecimal. */
  readonly digest: string;
}

/** The overlay attributes that change what a layer means. */
const OVERLAY_XATTRS = ['trusted', 'user'].flatMap((space) => [
  `${space}.overlay.opaque`,
  `${space}.overlay.redirect`,
]);

/** Adds up what a layer holds. */
class Meter {
  #inodes = 0;
  #blocks = 0;
  readonly #linked = new Set<bigint>();

  add({ status }: TreeEntry): void {
    if (status.links > 1 && !isDirectory(status.mode)) {
      if (this.#linked.has(status.inode)) return;
      this.#linked.add(status.inode);
    }
    this.#inodes += 1;
    this.#blocks += status.blocks;
  }

  get usage(): Usage {
    return { inodes: this.#inodes, size: this.#blocks * 512 };
  }
}

/**
 * Digests the metadata of a layer, version 1. For each file, in the order of the raw bytes of the paths, a
 * directory's with a slash behind it: the path; type and mode, owner, group; the size, except of directories; the
 * time of modification in nanoseconds; the numbers of a device node; the target of a symbolic link; and the
 * overlay's own attributes. Variable parts have their length before them.
 */
class Digest {
  readonly #hash = createHash('sha256');

  add({ path, handle, status }: TreeEntry): void {
    const { mode } = status;
    const type = mode & constants.S_IFMT;
    const isDevice = type === constants.S_IFCHR || type === constants.S_IFBLK;
    const numbers = [
      mode.toString(8),
      status.uid,
      status.gid,
      type === constants.S_IFDIR ? '' : status.size,
      status.modified,
      isDevice ? status.device : '',
    ];
    this.#field(path);
    this.#field(Buffer.from(numbers.join(' ')));
    if (type === constants.S_IFLNK) this.#field(readlinkSync(handle.subarray(0, -1), 'buffer'));
    // On files, the overlay keeps them only together with data that is elsewhere.
    if (
      type === constants.S_IFDIR ||
      (type === constants.S_IFREG && status.blocks === 0 && status.size > 0)
    ) {
      for (const [name, value] of readXattrs(handle, OVERLAY_XATTRS)) {
        this.#field(cString(name));
        this.#field(value);
      }
    }
  }

  get value(): string {
    return `metadata1:${this.#hash.digest('hex')}`;
  }

  #field(bytes: Buffer): void {
    this.#hash.update(`${bytes.length}:`);
    this.#hash.update(bytes);
  }
}

/** Digests an entry, unless it vanished between being listed and being read. */
function addUnlessGone(digest: Digest, entry: TreeEntry): void {
  try {
    digest.add(entry);
  } catch (error) {
    if (errnoOf(error) !== 'ENOENT') throw error;
  }
}

/** Measures what the layer in a directory holds, without holding the event loop for long. */
export async function measureUsage(directory: string): Promise<Usage> {
  const meter = new Meter();
  await inSlices(walkTree(directory), (entry) => meter.add(entry));
  return meter.usage;
}

/** Measures and digests the layer in a directory in one walk, without holding the event loop for long. */
export async function measure(directory: string): Promise<Measure> {
  const meter = new Meter();
  const digest = new Digest();
  await inSlices(walkTree(directory), (entry) => {
    meter.add(entry);
    addUnlessGone(digest, entry);
  });
  return { usage: meter.usage, digest: digest.value };
}

/** Measures and digests a layer at once: for one that was made a moment ago and is next to empty. */
export function measureNow(directory: string): Measure {
  const meter = new Meter();
  const digest = new Digest();
  for (const entry of walkTree(directory)) {
    meter.add(entry);
    addUnlessGone(digest, entry);
  }
  return { usage: meter.usage, digest: digest.value };
}
