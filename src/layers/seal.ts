import { ignoreGone } from '../linux/errno.ts';
import { type SliceOptions, inSlices } from '../linux/slices.ts';
import { type TreeEntry, type TreeWalk, walkTree } from '../linux/tree.ts';
import type { Usage } from '../snapshot.ts';
import { ContentDigest, MetadataDigest } from './digest.ts';
import { BufferedHash } from './buffered-hash.ts';
import { Meter } from './usage.ts';

/** What a walk over a layer found. */
export interface Measurement {
  /** What it holds. */
  readonly usage: Usage;
  /** The digests over it, as a row keeps them: `metadata1:` and, with contents, ` content1:`, each a SHA-256. */
  readonly digest: string;
  /** If that was asked for, what differs as soon as anything in the layer has changed, even if it was changed back. */
  readonly version: string | undefined;
}

/** How a layer is measured. */
export interface MeasureOptions extends SliceOptions {
  /** Read the contents of its files and their extended attributes too. */
  readonly contents?: boolean;
  /** Told after each file, what was found so far. */
  readonly meter?: Meter;
  /** Find out the version too. */
  readonly versioned?: boolean;
}

/** Digests the inode numbers and times of change of a layer's files: cheap, and different after any change. */
class Version {
  readonly #hash = new BufferedHash('sha1');

  add({ status }: TreeEntry): void {
    for (const part of status.versionParts) this.#hash.add(part);
  }

  get value(): string {
    return this.#hash.value;
  }
}

/** Measures and digests a layer in one walk, without holding the event loop for long. */
export async function measure(
  layer: TreeWalk,
  { contents = false, meter = new Meter(), versioned = false, ...watch }: MeasureOptions = {},
): Promise<Measurement> {
  const metadata = new MetadataDigest();
  const content = contents ? new ContentDigest() : undefined;
  const version = versioned ? new Version() : undefined;
  const onBytes = (bytes: number): void => {
    meter.advance(bytes);
    watch.signal?.throwIfAborted();
    watch.onSlice?.();
  };
  const add = (entry: TreeEntry): Promise<void> | undefined => {
    version?.add(entry);
    try {
      metadata.add(entry);
      const reading = content?.add(entry, onBytes);
      if (reading !== undefined) return reading.then(() => meter.add(entry), ignoreGone);
      meter.add(entry);
      return undefined;
    } catch (error) {
      return ignoreGone(error);
    }
  };
  await inSlices(layer, add, watch);
  return { usage: meter.usage, digest: join(metadata, content), version: version?.value };
}

/** Measures and digests a layer at once: for one that was made a moment ago and is next to empty. */
export function measureNow(layer: TreeWalk, contents: boolean): Omit<Measurement, 'version'> {
  const meter = new Meter();
  const metadata = new MetadataDigest();
  const content = contents ? new ContentDigest() : undefined;
  for (const entry of layer) {
    if (entry === undefined) continue;
    meter.add(entry);
    metadata.add(entry);
    content?.addNow(entry);
  }
  return { usage: meter.usage, digest: join(metadata, content) };
}

function join(metadata: MetadataDigest, content: ContentDigest | undefined): string {
  return content === undefined ? metadata.value : `${metadata.value} ${content.value}`;
}

/** The version of a layer as it is now, to compare with that of a measure. */
export async function versionOf(layer: TreeWalk, watch?: SliceOptions): Promise<string> {
  const version = new Version();
  await inSlices(layer, (entry) => version.add(entry), watch);
  return version.value;
}

/** What became of a sealed layer. */
export interface Verdict {
  /** `unknown` if there is no digest, or none of a version that is known here. */
  readonly seal: 'whole' | 'broken' | 'unknown';
  /** What the layer holds now. */
  readonly usage: Usage;
}

/**
 * Measures a committed layer again and compares it with its seal; with `contents`, and if the seal has a digest of
 * them, every byte of it.
 *
 * @throws what the operating system says of a layer that cannot be read
 */
export async function verifySeal(
  directory: string,
  seal: string | null,
  measuring: MeasureOptions = {},
): Promise<Verdict> {
  const sealed = seal?.split(' ') ?? [];
  const known = sealed.filter((digest) => /^(metadata1|content1):[0-9a-f]{64}$/.test(digest));
  const contents = measuring.contents === true && known.some((digest) => digest.startsWith('content1:'));
  const { usage, digest } = await measure(walkTree(directory), { ...measuring, contents });
  const found = new Map(digest.split(' ').map((text) => [kindOfDigest(text), text]));
  const comparable = known.filter((text) => found.has(kindOfDigest(text)));
  if (comparable.length === 0) return { seal: 'unknown', usage };
  return {
    seal: comparable.every((text) => found.get(kindOfDigest(text)) === text) ? 'whole' : 'broken',
    usage,
  };
}

function kindOfDigest(digest: string): string {
  return digest.slice(0, digest.indexOf(':'));
}
