import { closeSync } from 'node:fs';
import { SnapshotError, toSnapshotError } from '../errors.ts';
import { isGone, isSystemError } from '../linux/errno.ts';
import type { SliceOptions } from '../linux/slices.ts';
import type { RowReader } from '../metadata/row-reader.ts';
import { quote } from '../quote.ts';
import type { Checked } from '../arguments.ts';
import type { Progress, Seal, Usage, Watched } from '../snapshot.ts';
import { copyLayer } from './copy.ts';
import type { HeldRoot } from './held-root.ts';
import type { SnapshotsView } from './snapshots-view.ts';
import type { StoreMounts } from './store-mounts.ts';
import type { LayerSync } from './sync.ts';
import type { Layout } from './layout.ts';
import { isInOverlay, lastMount } from './overlay-use.ts';
import { type MeasureOptions, type Measurement, lookAgain, measure, measureNow } from './seal.ts';
import { Meter, measureUsage } from './usage.ts';
import { Whiteouts } from './whiteouts.ts';

/** The layer of a snapshot. */
export interface Layer {
  readonly id: number;
  readonly key: string;
  /** Whether the snapshot is a base, so that its layer is mounted by itself and not as part of an overlay. */
  readonly base: boolean;
  /** Whether what is committed of it is a base too, and so may hold no whiteouts (default: false). */
  readonly staysBase?: boolean;
}

/** The seal of a layer that is about to be committed. */
export type LayerSeal = Omit<Seal, 'key' | 'id'>;

interface LayersOptions {
  readonly root: HeldRoot;
  readonly snapshotsView: SnapshotsView;
  readonly mounts: StoreMounts;
  /** Absent if layers are not to be made durable. */
  readonly sync: LayerSync | undefined;
  /** Whether seals cover the contents of files. */
  readonly contents: boolean;
  readonly reader: RowReader;
}

/**
 * Measures, seals, copies and syncs layers. Most of it takes long, and so is done outside of transactions.
 *
 * If a layer is missing, `usage`, `seal`, `copy` and `inUse` throw `NOT_FOUND` if its snapshot is gone too, and otherwise
 * `DATA_LOSS`.
 */
export class Layers {
  readonly #root: HeldRoot;
  readonly #layout: Layout;
  readonly #snapshotsView: SnapshotsView;
  readonly #mounts: StoreMounts;
  readonly #sync: LayerSync | undefined;
  readonly #contents: boolean;
  readonly #reader: RowReader;

  constructor({ root, snapshotsView, mounts, sync, contents, reader }: LayersOptions) {
    this.#root = root;
    this.#layout = root.layout;
    this.#snapshotsView = snapshotsView;
    this.#mounts = mounts;
    this.#sync = sync;
    this.#contents = contents;
    this.#reader = reader;
  }

  /** The present usage of a layer. */
  async usage(layer: Layer): Promise<Usage> {
    return this.#reading(layer, 'measuring', () => measureUsage(this.#snapshotsView.walk(layer.id)));
  }

  /** Measures and digests a layer and makes it durable. */
  async seal(layer: Layer, watched: Checked<Watched>): Promise<LayerSeal> {
    return this.#reading(layer, 'sealing', async () => {
      const before = await this.#readMountState(layer);
      const { usage, digest, version } = await this.#seal(layer, watched, {
        versioned: before === undefined,
      });
      // In this order: once the last mount is gone, only what differs from before shows that there was one.
      const mounted = await this.inUse(layer);
      const changed = async (): Promise<boolean> => {
        if (before !== undefined) return before.mounted || before.last !== lastMount(this.#root, layer.id);
        const now = await lookAgain(this.#snapshotsView.walk(layer.id), watched);
        return now.written || now.version !== version;
      };
      return { usage, digest, inUse: mounted || (await changed()) };
    });
  }

  /** The same as `seal`, without interruption: for a layer that one transaction both makes and commits. */
  sealNow(layer: Layer): LayerSeal {
    const whiteouts = new Whiteouts();
    const { usage, digest } = measureNow(this.#snapshotsView.walk(layer.id), {
      contents: this.#contents,
      ...(layer.staysBase === true && { look: whiteouts.look }),
    });
    whiteouts.refuse(layer.key);
    this.#sync?.syncNow(layer.id, usage.inodes);
    return {
      usage,
      digest,
      inUse: this.#mounts.findOwnNow(String(layer.id)) !== undefined,
    };
  }

  /** Copies a layer to that of another id, and seals the copy. */
  async copy(layer: Layer, target: number, watched: Checked<Watched>): Promise<LayerSeal> {
    return this.#reading(layer, 'copying', async () => {
      const meter = new Meter();
      const options = beginPhase(watched, 'copying', meter);
      const directory = this.#root.open(target);
      try {
        await copyLayer(this.#snapshotsView.walk(layer.id), directory, { ...options, meter });
      } finally {
        closeSync(directory);
      }
      return { ...(await this.#seal({ ...layer, id: target }, watched)), inUse: false };
    });
  }

  /** Whether a layer is mounted so that it can be written to, as far as this process can see. */
  async inUse(layer: Layer): Promise<boolean> {
    const { id, base } = layer;
    return this.#reading(layer, 'looking for mounts of', async () => {
      const below = String(id);
      if ((await this.#mounts.findOwn(below)) !== undefined) return true;
      const inOverlay = await isInOverlay(this.#root, id);
      if (inOverlay !== undefined && !base) return inOverlay;
      return inOverlay === true || (await this.#mounts.survey()).findUse(below)?.certain === true;
    });
  }

  /**
   * Whether a layer is mounted as part of an overlay, and which mount of it was the last: if this differs later, it has
   * been mounted meanwhile.
   *
   * @returns `undefined` for a base, which can be written to without an overlay, and if this process cannot find out
   */
  async #readMountState({
    id,
    base,
  }: Layer): Promise<{ mounted: boolean; last: string | undefined } | undefined> {
    if (base) return undefined;
    const last = lastMount(this.#root, id);
    const mounted = await isInOverlay(this.#root, id);
    return mounted === undefined ? undefined : { mounted, last };
  }

  async #seal(
    { id, key, staysBase = false }: Layer,
    watched: Checked<Watched>,
    { versioned = false }: Pick<MeasureOptions, 'versioned'> = {},
  ): Promise<Measurement> {
    const meter = new Meter();
    const whiteouts = new Whiteouts();
    const options = beginPhase(watched, 'measuring', meter);
    const measured = await measure(this.#snapshotsView.walk(id), {
      ...options,
      meter,
      contents: this.#contents,
      versioned,
      ...(staysBase && { look: whiteouts.look }),
    });
    whiteouts.refuse(key);
    beginPhase(watched, 'syncing', meter);
    await this.#sync?.sync(id, measured.usage.inodes);
    watched.signal?.throwIfAborted();
    return measured;
  }

  /** Runs `body`, which reads a layer, and translates its errors. */
  async #reading<T>({ key, id }: Layer, doing: string, body: () => Promise<T>): Promise<T> {
    try {
      return await body();
    } catch (error) {
      // The reason of a signal, or what a function of the caller has thrown, stays as it is.
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

/** Reports that a phase begins. @returns options by which its progress is reported too */
function beginPhase(
  { signal, onProgress }: Checked<Watched>,
  phase: Progress['phase'],
  meter: Meter,
): SliceOptions {
  const onSlice = (): void => onProgress?.({ phase, inodes: meter.usage.inodes, bytes: meter.bytes });
  onSlice();
  signal?.throwIfAborted();
  return { signal, onSlice };
}
