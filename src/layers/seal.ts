import { closeSync } from 'node:fs';
import { ignoreGone, unlessGone } from '../linux/errno.ts';
import { isOpenForWriting } from '../linux/file-calls.ts';
import { FileStatus, isRegular } from '../linux/file-status.ts';
import { openRegularOrNew } from '../linux/regular-file.ts';
import { type SliceOptions, inSlices } from '../linux/slices.ts';
import type { TreeEntry, TreeWalk } from '../linux/tree-walk.ts';
import type { Usage } from '../snapshot.ts';
import { ContentDigest, type ContentVersion, MetadataDigest } from './digest.ts';
import { BufferedHash } from './buffered-hash.ts';
import { Meter } from './usage.ts';

/** The result of measuring a layer. */
export interface Measurement {
  readonly usage: Usage;
  /** The digests over it, as `seal` of a snapshot has them. */
  readonly digest: string;
  /** A digest that is different after any change, even one that was undone; `undefined` if it was not requested. */
  readonly version: string | undefined;
}

/** How a layer is measured. */
export interface MeasureOptions extends SliceOptions {
  /** Digest the contents and extended attributes of the files too. (default: false) */
  readonly contents?: boolean;
  /** The version of the digest over contents. (default: the newest) */
  readonly contentVersion?: ContentVersion | undefined;
  /** Counts each file once it was measured. */
  readonly meter?: Meter;
  /** Compute the version too. (default: false) */
  readonly versioned?: boolean;
  /** Called with every file. */
  readonly look?: (entry: TreeEntry) => void;
}

/** A digest over the inode numbers, sizes and times of the last change of status of the files of a layer. */
class Version {
  readonly #hash = new BufferedHash('sha1');

  add({ status }: TreeEntry): void {
    for (const part of status.versionParts) this.#hash.add(part);
  }

  digest(): string {
    return this.#hash.digest();
  }
}

/**
 * Measures and digests a layer in one walk, in slices of time.
 *
 * @throws {SnapshotError} FAILED_PRECONDITION if a file becomes shorter while it is read
 * @throws the signal's reason, or what `onSlice` throws
 * @throws a system error, if the layer cannot be read
 */
export async function measure(
  layer: TreeWalk,
  {
    contents = false,
    contentVersion,
    meter = new Meter(),
    versioned = false,
    look,
    signal,
    onSlice,
  }: MeasureOptions = {},
): Promise<Measurement> {
  const metadata = new MetadataDigest();
  const content = contents ? new ContentDigest(contentVersion) : undefined;
  const version = versioned ? new Version() : undefined;
  const onBytes = (bytes: number): void => {
    meter.advance(bytes);
    signal?.throwIfAborted();
    onSlice?.();
  };
  const add = (entry: TreeEntry): Promise<void> | undefined => {
    version?.add(entry);
    look?.(entry);
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
  await inSlices(layer, add, { signal, onSlice });
  return { usage: meter.usage, digest: join(metadata, content), version: version?.digest() };
}

/** Measures and digests a layer without interruption: for one that has just been made and is nearly empty. */
export function measureNow(
  layer: TreeWalk,
  { contents = false, look }: Pick<MeasureOptions, 'contents' | 'look'> = {},
): Omit<Measurement, 'version'> {
  const meter = new Meter();
  const metadata = new MetadataDigest();
  const content = contents ? new ContentDigest() : undefined;
  for (const entry of layer) {
    if (entry === undefined) continue;
    look?.(entry);
    meter.add(entry);
    metadata.add(entry);
    content?.addNow(entry);
  }
  return { usage: meter.usage, digest: join(metadata, content) };
}

function join(metadata: MetadataDigest, content: ContentDigest | undefined): string {
  return content === undefined ? metadata.digest() : `${metadata.digest()} ${content.digest()}`;
}

/** What a second look at a layer finds. */
export interface SecondLook {
  /** The present version of the layer, to compare with that of a measurement. */
  readonly version: string;
  /** Whether some process has a file of it open for writing, or mapped so. */
  readonly written: boolean;
}

/**
 * Looks at a layer again after it was measured. A mount that was detached is in no table, but what it has open for
 * writing can be found.
 *
 * @throws as `measure`
 */
export async function lookAgain(layer: TreeWalk, options?: SliceOptions): Promise<SecondLook> {
  const version = new Version();
  let written = false;
  const opened = new FileStatus();
  const look = (entry: TreeEntry): void => {
    version.add(entry);
    if (!written && isRegular(entry.status.mode))
      written = unlessGone(() => hasWriter(entry, opened)) === true;
  };
  await inSlices(layer, look, options);
  return { version: version.digest(), written };
}

function hasWriter(entry: TreeEntry, status: FileStatus): boolean {
  const fd = openRegularOrNew(entry, status);
  try {
    return isOpenForWriting(fd) === true;
  } finally {
    closeSync(fd);
  }
}

/** The result of verifying a seal. */
export interface Verdict {
  /** `unknown` if the seal has no digest of a version that is known here. */
  readonly seal: 'whole' | 'broken' | 'unknown';
  /** Whether the digest over contents was compared and is whole, so that only metadata can have changed. */
  readonly contentsWhole: boolean;
  /** The present usage of the layer. */
  readonly usage: Usage;
}

/**
 * Measures a committed layer again and compares it with its seal. Reads every byte only with `contents`, and if the
 * seal covers the contents.
 *
 * @throws as `measure`
 */
export async function verifySeal(
  layer: TreeWalk,
  seal: string | null,
  measuring: MeasureOptions = {},
): Promise<Verdict> {
  const sealed = seal?.split(' ') ?? [];
  const known = sealed.filter((digest) => /^(metadata1|content[12]):[0-9a-f]{64}$/.test(digest));
  const sealedContents = known.find((digest) => digest.startsWith('content'));
  const { usage, digest } = await measure(layer, {
    ...measuring,
    contents: measuring.contents === true && sealedContents !== undefined,
    contentVersion: sealedContents?.startsWith('content1:') === true ? 1 : undefined,
  });
  const found = new Map(digest.split(' ').map((text) => [kindOfDigest(text), text]));
  const comparable = known.filter((text) => found.has(kindOfDigest(text)));
  const whole = comparable.filter((text) => found.get(kindOfDigest(text)) === text);
  const state = whole.length === comparable.length ? 'whole' : 'broken';
  return {
    seal: comparable.length === 0 ? 'unknown' : state,
    contentsWhole: whole.some((text) => text.startsWith('content')),
    usage,
  };
}

function kindOfDigest(digest: string): string {
  return digest.slice(0, digest.indexOf(':'));
}
