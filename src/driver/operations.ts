import { SnapshotError } from '../errors.ts';
import type { DirectoryLock } from '../layers/directory-lock.ts';
import { OccupiedIdError } from '../layers/directories.ts';
import type { Layer, LayerSeal } from '../layers/layers.ts';
import { currentBoot } from '../linux/boot.ts';
import type { FoundSnapshot, Removal } from '../metadata/rows.ts';
import { MAX_LOWERS } from '../mount/options.ts';
import { quote } from '../quote.ts';
import type { Info, Mount, Seal, SnapshotRecord } from '../snapshot.ts';
import type { CommitRequest, InUsePolicy, PrepareRequest, UpdateRequest } from './arguments.ts';
import { type ReadView, checkDepth } from './mount-table.ts';
import type { Resources } from './resources.ts';

/** The label that tells containerd where a snapshot's own layer is. */
const UPPERDIR = 'containerd.io/snapshot/overlay.upperdir';

/**
 * What the driver does, on rows and directories together. Each operation is synchronous. One that writes runs within an
 * open transaction, and what it has done before it throws is rolled back by the caller, directories included.
 */
export class Operations {
  readonly #resources: Resources;

  constructor(resources: Resources) {
    this.#resources = resources;
  }

  /** Inserts the row of an open snapshot, makes its directories, and gives its mounts. */
  prepare(request: PrepareRequest): Mount[] {
    const { key, kind, labels, volatile } = request;
    const { id, parentId } = this.#create(request);
    const { chains, mountTable } = this.#resources;
    const { lowers, depth } = chains.ancestorsOf({ name: key, parentId });
    checkDepth(key, depth);
    return mountTable.mounts({ id, kind, labels, lowers, volatile });
  }

  /** Inserts the row of an open snapshot and makes its directories. */
  #create({ kind, key, parent, labels, volatile }: PrepareRequest): Pick<FoundSnapshot, 'id' | 'parentId'> {
    const { writer, directories } = this.#resources;
    const volatileBoot = volatile ? currentBoot() : null;
    for (;;) {
      const { id, parentId } = writer.create({ kind, key, parent, labels, volatileBoot });
      try {
        if (kind === 'active' || parentId === null) {
          directories.make({ id, writable: kind === 'active', parentId, labels });
        }
        return { id, parentId };
      } catch (error) {
        if (!(error instanceof OccupiedIdError)) throw error;
        // No id is used twice, so the next attempt gets the one after this.
        writer.forgetRemovals([writer.remove(key)]);
      }
    }
  }

  /** The mounts of an open snapshot. */
  mounts(key: string): Mount[] {
    const { reader, chains, mountTable } = this.#resources;
    const found = reader.find(key);
    const { id, kind, volatileBoot } = found;
    if (kind === 'committed') {
      throw new SnapshotError(
        'FAILED_PRECONDITION',
        `${quote(key)} is committed and has no mounts of its own`,
        { hint: 'make a view of it' },
      );
    }
    const labels = mountTable.usesLabels ? reader.stat(key).labels : {};
    const { lowers } = chains.ancestorsOf(found);
    return mountTable.mounts({ id, kind, labels, lowers, volatile: volatileBoot !== null });
  }

  /** The mounts and layers by which the contents of a snapshot of any kind can be read. */
  readView(keyOrName: string): ReadView {
    const { reader, chains, mountTable } = this.#resources;
    const found = reader.find(keyOrName);
    const { id, kind } = found;
    const { lowers: chain, depth } = chains.ancestorsOf(found);
    const ancestors = depth === 0 ? [] : chain.split(mountTable.separator).map(Number);
    const layers = kind === 'view' && depth > 0 ? ancestors : [id, ...ancestors];
    if (layers.length > MAX_LOWERS) {
      throw new SnapshotError(
        'FAILED_PRECONDITION',
        `${quote(keyOrName)} consists of ${layers.length} layers, of which overlayfs shows no more than ${MAX_LOWERS} at once`,
      );
    }
    const lowers = layers.join(mountTable.separator);
    const mounts = mountTable.mounts({ id, kind: 'view', labels: {}, lowers, volatile: false });
    return { mounts, layers };
  }

  /** Turns an active snapshot into a committed one. Without a seal its layer is sealed on the spot. */
  commit({ name, key, labels, parent }: CommitRequest, given: Seal | undefined): Info {
    const { reader, writer, layers } = this.#resources;
    reader.checkFree(name);
    const active = reader.findActive(key);
    const { id, parentId } = active;
    const seal = given ?? { id, ...layers.sealNow(toLayer({ key, id, parentId }, parent)) };
    checkSame(active, seal);
    const { usage, digest, inUse } = seal;
    const record = writer.commit(active, { name, labels, parent, usage, seal: digest, inUse });
    if (parent !== null) this.#checkDepth(name);
    return this.info(record);
  }

  /** Reserves an id for a copy, with its directory, and locks that. */
  reserve(): DirectoryLock {
    const { writer, directories } = this.#resources;
    for (;;) {
      const id = writer.reserveId();
      try {
        return directories.reserve(id);
      } catch (error) {
        if (!(error instanceof OccupiedIdError)) throw error;
        // As above.
        writer.abandonId(id);
        writer.forgetRemovals([{ id, part: 'all' }]);
      }
    }
  }

  /**
   * Turns a reserved id, with a copy of the layer of an active snapshot, into a committed snapshot.
   *
   * @param replace whether the active snapshot is removed
   */
  commitCopy(
    { name, key, labels, parent }: CommitRequest,
    { layer, copy, seal, replace }: { layer: Layer; copy: number; seal: LayerSeal; replace: boolean },
  ): Info {
    const { reader, writer } = this.#resources;
    reader.checkFree(name);
    const active = reader.findActive(key);
    checkSame(active, layer);
    const { usage, digest, inUse } = seal;
    const record = writer.commitCopy(active, copy, { name, labels, parent, usage, seal: digest, inUse });
    if (parent !== null) this.#checkDepth(name);
    if (replace) writer.remove(key);
    return this.info(record);
  }

  /** Removes the row of an open snapshot. */
  remove(key: string): Removal {
    return this.#resources.writer.remove(key);
  }

  /** Removes the row of a committed snapshot. */
  delete(name: string): Removal {
    return this.#resources.writer.delete(name);
  }

  /** Changes labels. */
  update({ keyOrName, labels, keys }: UpdateRequest): Info {
    return this.info(this.#resources.writer.setLabels(keyOrName, labels, keys));
  }

  /** All that is known of a snapshot. */
  stat(keyOrName: string): Info {
    return this.info(this.#resources.reader.stat(keyOrName));
  }

  /**
   * A record with what the driver knows beyond it. It is the same object, which nobody else has: in a listing, a copy
   * would cost a third of reading it.
   */
  info(record: SnapshotRecord): Info {
    const { layout, settings } = this.#resources;
    const { id, kind, parent, labels } = record;
    const directory = kind === 'view' && parent !== null ? null : layout.directory(id);
    if (!settings.upperdirLabel || directory === null) return Object.assign(record, { directory });
    return { ...record, directory, labels: { ...labels, [UPPERDIR]: layout.fs(id) } };
  }

  /** A snapshot that was given another parent must not have got too many ancestors. */
  #checkDepth(name: string): void {
    const { reader, chains } = this.#resources;
    checkDepth(name, chains.ancestorsOf(reader.find(name)).depth);
  }
}

/** @throws {SnapshotError} FAILED_PRECONDITION if a layer is in use and may not be */
export function checkInUse({ key, inUse }: Pick<Seal, 'key' | 'inUse'>, policy: InUsePolicy): void {
  if (!inUse || policy !== 'refuse') return;
  throw new SnapshotError('FAILED_PRECONDITION', `${quote(key)} is still in use`, {
    hint: 'unmount it, and let what writes to it come to rest',
  });
}

/** Checks that a key still names the snapshot that was sealed. */
function checkSame(found: FoundSnapshot, sealed: { readonly id: number }): void {
  if (found.id === sealed.id) return;
  throw new SnapshotError(
    'FAILED_PRECONDITION',
    `${quote(found.name)} is another snapshot than the one that was sealed`,
  );
}

/** The layer of an active snapshot that is to be committed on `parent`, or on the parent that it has. */
export function toLayer(
  { key, id, parentId }: { readonly key: string; readonly id: number; readonly parentId: number | null },
  parent: string | null,
): Layer {
  const base = parentId === null;
  return { key, id, base, staysBase: base && parent === null };
}
