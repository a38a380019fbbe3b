import { SnapshotError, toSnapshotError } from '../errors.ts';
import { isGone, isSystemError } from '../linux/errno.ts';
import { findUse, readAllMounts, readOwnMounts, readOwnMountsNow } from '../linux/mountinfo.ts';
import type { SliceOptions } from '../linux/slices.ts';
import type { RowReader } from '../metadata/row-reader.ts';
import { quote } from '../quote.ts';
import type { Checked } from '../arguments.ts';
import type { Progress, Seal, Usage, Watched } from '../snapshot.ts';
import { copyLayer } from './copy.ts';
import type { SnapshotsView } from './snapshots-view.ts';
import type { LayerSync } from './sync.ts';
import type { Layout } from './layout.ts';
import { isInOverlay, lastMount } from './overlay-use.ts';
import { type Measurement, measure, measureNow, versionOf } from './seal.ts';
import { Meter, measureUsage } from './usage.ts';

/** A layer that belongs to a snapshot. */
export interface Layer {
  readonly id: number;
  readonly key: string;
  /** Whether it stands on nothing, so that it is mounted by itself and not as part of an overlay. */
  readonly base: boolean;
}

/** What was found out about a layer that is about to be committed. */
export type LayerSeal = Omit<Seal, 'key' | 'id'>;

interface Parts {
  readonly layout: Layout;
  readonly snapshotsView: SnapshotsView;
  /** Absent where the contents of layers are not made durable. */
  readonly sync: LayerSync | undefined;
  /** Whether a seal covers the contents of files. */
  readonly contents: boolean;
  readonly reader: RowReader;
}

/** What is done to layers outside any transaction, since it takes long: they are measured, copied and synced. */
export class Layers {
  readonly #layout: Layout;
  readonly #snapshotsView: SnapshotsView;
  readonly #sync: LayerSync | undefined;
  readonly #contents: boolean;
  readonly #reader: RowReader;

  constructor({ layout, snapshotsView, sync, contents, reader }: Parts) {
    this.#layout = layout;
    this.#snapshotsView = snapshotsView;
    this.#sync = sync;
    this.#contents = contents;
    this.#reader = reader;
  }

  /** What a layer holds now. */
  async usage(layer: Layer): Promise<Usage> {
    return this.#reading(layer, 'measuring', () => measureUsage(this.#snapshotsView.walk(layer.id)));
  }

  /** Measures and digests a layer and makes it durable. */
  async seal(layer: Layer, watched: Checked<Watched>): Promise<LayerSeal> {
    return this.#reading(layer, 'sealing', async () => {
      const before = await this.#lookForMounts(layer);
      const { usage, digest, version } = await this.#seal(layer.id, watched, before === undefined);
      // In this order: after the last mount is gone, only what comes then can tell that there was one.
      const mounted = await this.inUse(layer);
      const changed = async (): Promise<boolean> =>
        before === undefined
          ? (await versionOf(this.#snapshotsView.walk(layer.id), watched)) !== version
          : before.mounted || before.last !== lastMount(this.#layout, layer.id);
      return { usage, digest, inUse: mounted || (await changed()) };
    });
  }

  /** Does the same on the spot, for a layer that a transaction both makes and commits. */
  sealNow(layer: Layer): LayerSeal {
    const { usage, digest } = measureNow(this.#snapshotsView.walk(layer.id), this.#contents);
    this.#sync?.syncNow(layer.id, usage.inodes);
    return {
      usage,
      digest,
      inUse: findUse([readOwnMountsNow()], this.#layout.directory(layer.id)) !== undefined,
    };
  }

  /** Copies a layer to a new id and measures, digests and syncs the copy. */
  async copy(layer: Layer, target: number, watched: Checked<Watched>): Promise<LayerSeal> {
    return this.#reading(layer, 'copying', async () => {
      const meter = new Meter();
      const watch = begin(watched, 'copying', meter);
      await copyLayer(this.#layout.fs(layer.id), this.#layout.fs(target), { ...watch, meter });
      return { ...(await this.#seal(target, watched, false)), inUse: false };
    });
  }

  /** Whether anything that can be found out about has a layer mounted to write to it. */
  async inUse({ id, base }: Layer): Promise<boolean> {
    const directory = this.#layout.directory(id);
    if (findUse([await readOwnMounts()], directory) !== undefined) return true;
    const inOverlay = await isInOverlay(this.#layout, id);
    if (inOverlay !== undefined && !base) return inOverlay;
    return inOverlay === true || findUse(await readAllMounts(), directory) !== undefined;
  }

  /**
   * What tells later on whether a layer that is only written to as part of an overlay has been mounted since;
   * `undefined` if it may also be written to in other ways, or this process cannot find out.
   */
  async #lookForMounts({
    id,
    base,
  }: Layer): Promise<{ mounted: boolean; last: string | undefined } | undefined> {
    if (base) return undefined;
    const last = lastMount(this.#layout, id);
    const mounted = await isInOverlay(this.#layout, id);
    return mounted === undefined ? undefined : { mounted, last };
  }

  async #seal(id: number, watched: Checked<Watched>, versioned: boolean): Promise<Measurement> {
    const meter = new Meter();
    const watch = begin(watched, 'measuring', meter);
    const measured = await measure(this.#snapshotsView.walk(id), {
      ...watch,
      meter,
      contents: this.#contents,
      versioned,
    });
    begin(watched, 'syncing', meter);
    await this.#sync?.sync(id, measured.usage.inodes);
    watched.signal?.throwIfAborted();
    return measured;
  }

  /** Reads a layer, which may be gone because its snapshot is. */
  async #reading<T>({ key, id }: Layer, doing: string, body: () => Promise<T>): Promise<T> {
    try {
      return await body();
    } catch (error) {
      // A signal's reason, or what a caller's own function has thrown, is the caller's.
      if (!isSystemError(error)) throw error;
      if (!isGone(error)) throw toSnapshotError(error, `${doing} ${quote(key)}`);
      if (this.#reader.statById(id) === undefined) {
        throw new SnapshotError('NOT_FOUND', `there is no snapshot ${quote(key)} any more`);
      }
      throw new SnapshotError(
        'DATA_LOSS',
        `${doing} ${quote(key)}: its layer ${quote(this.#layout.fs(id))} is missing or not a directory`,
        { cause: error },
      );
    }
  }
}

/** Reports that a phase begins, and how far it is from then on. */
function begin(
  { signal, onProgress }: Checked<Watched>,
  phase: Progress['phase'],
  meter: Meter,
): SliceOptions {
  const onSlice = (): void => onProgress?.({ phase, inodes: meter.usage.inodes, bytes: meter.bytes });
  onSlice();
  signal?.throwIfAborted();
  return { signal, onSlice };
}
