import type { Database } from 'better-sqlite3';
import { SnapshotError } from '../errors.ts';
import { quote } from '../quote.ts';
import type { Labels, SnapshotRecord, Usage } from '../snapshot.ts';
import { nowUs } from './clock.ts';
import type { RowReader } from './row-reader.ts';
import { type FoundSnapshot, type Removal, describeKind } from './rows.ts';
import { type CommittedValues, prepareWrites } from './write-statements.ts';

/** The row of a new open snapshot. */
export interface NewSnapshot {
  readonly kind: 'active' | 'view';
  readonly key: string;
  readonly parent: string | null;
  readonly labels: Labels;
  /** For a volatile snapshot, the boot in which it is prepared; `null` for any other. */
  readonly volatileBoot: string | null;
}

/** The values that a row gets when its snapshot is committed. */
export interface Commit {
  readonly name: string;
  readonly labels: Labels;
  /** The name to descend from, for a snapshot that was prepared without a parent; `null` for its own. */
  readonly parent: string | null;
  readonly usage: Usage;
  /** The digests over its layer, or `null`. */
  readonly seal: string | null;
  /** Whether something still had it mounted; `null` if that is unknown. */
  readonly inUse: boolean | null;
}

/** What `RowWriter.create` has inserted. */
export interface Created {
  readonly id: number;
  readonly parentId: number | null;
  /** Its time of creation, in microseconds since the epoch. */
  readonly us: number;
}

/**
 * Writes rows, within a transaction that is open. Values have been checked before, the state of the store is checked
 * here, and errors of SQLite are translated by the caller. The caller rolls back what a method has
 * written before it throws.
 */
export class RowWriter {
  readonly #reader: RowReader;
  readonly #statements: ReturnType<typeof prepareWrites>;

  constructor(db: Database, reader: RowReader) {
    this.#reader = reader;
    this.#statements = prepareWrites(db);
  }

  /** @throws {SnapshotError} as `Snapshotter.prepare` */
  create({ kind, key, parent, labels, volatileBoot }: NewSnapshot): Created {
    const parentId = parent === null ? null : this.#findParent(parent, 'INVALID_ARGUMENT').id;
    this.#reader.checkFree(key);
    const us = nowUs();
    const id = this.#statements.insertOpen.get({ name: key, kind, parentId, us, volatileBoot });
    if (id === undefined) throw new SnapshotError('INTERNAL', `inserting ${quote(key)} gave no id`);
    this.#addLabels(id, labels);
    return { id, parentId, us };
  }

  /**
   * Turns an active snapshot into the committed one of a name, which the caller has found to be free.
   *
   * @throws {SnapshotError} as `Snapshotter.commit`
   */
  commit(active: FoundSnapshot, commit: Commit): SnapshotRecord {
    const { parentId, parent } = this.#parentOf(active, commit.parent);
    const values = toValues(active.id, parentId, commit);
    this.#statements.commit.run(values);
    this.#statements.deleteLabels.run(active.id);
    this.#addLabels(active.id, commit.labels);
    return toCommitted(values, parent, commit);
  }

  /**
   * Turns a reserved id into the committed snapshot of a name, which the caller has found to be free. It gets the parent
   * that the active snapshot has, which stays as it is.
   *
   * @throws {SnapshotError} as `Snapshotter.commit`
   * @throws {SnapshotError} FAILED_PRECONDITION if the id is not reserved any more
   */
  commitCopy(active: FoundSnapshot, reserved: number, commit: Commit): SnapshotRecord {
    const { parentId, parent } = this.#parentOf(active, commit.parent);
    if (!this.#reader.isReserved(reserved)) {
      throw new SnapshotError('FAILED_PRECONDITION', `id ${reserved} is not reserved any more`);
    }
    const values = toValues(reserved, parentId, commit);
    this.#statements.insertCommitted.run(values);
    this.#addLabels(reserved, commit.labels);
    return toCommitted(values, parent, commit);
  }

  /** @throws {SnapshotError} as `Snapshotter.remove` */
  remove(key: string): Removal {
    const open = this.#reader.find(key);
    if (open.kind !== 'committed') return this.#delete(open);
    throw new SnapshotError('FAILED_PRECONDITION', `${quote(key)} is committed`, { hint: 'use delete' });
  }

  /** @throws {SnapshotError} as `Snapshotter.delete` */
  delete(name: string): Removal {
    const committed = this.#reader.find(name);
    if (committed.kind === 'committed') return this.#delete(committed);
    throw new SnapshotError(
      'FAILED_PRECONDITION',
      `${quote(name)} is not committed but ${describeKind(committed)}`,
      { hint: 'use remove' },
    );
  }

  /**
   * Sets the labels of some keys, or all labels.
   *
   * @param keys the keys to set, of which those without a value in `labels` are removed; or `all`
   * @throws {SnapshotError} as `Snapshotter.update`
   */
  setLabels(keyOrName: string, labels: Labels, keys: 'all' | readonly string[]): SnapshotRecord {
    const { id } = this.#reader.find(keyOrName);
    if (keys === 'all') {
      this.#statements.deleteLabels.run(id);
      this.#addLabels(id, labels);
    } else {
      for (const key of keys) {
        const value = Object.hasOwn(labels, key) ? labels[key] : undefined;
        if (value === undefined) this.#statements.deleteLabel.run(id, key);
        else this.#statements.setLabel.run(id, key, value);
      }
    }
    this.#statements.touch.run(nowUs(), id);
    return this.#reader.stat(keyOrName);
  }

  /**
   * Records in which boot a volatile snapshot is mounted.
   *
   * @throws {SnapshotError} NOT_FOUND
   */
  setVolatileBoot(key: string, boot: string): void {
    this.#statements.setVolatileBoot.run(boot, this.#reader.find(key).id);
  }

  /** Reserves an id for a copy: see `MetadataStore.reserve`. */
  reserveId(): number {
    const id = this.#statements.reserveId.get();
    if (id === undefined) throw new SnapshotError('INTERNAL', 'no id was reserved');
    return id;
  }

  /** Gives up a reserved id. Whether it was still reserved. */
  abandonId(id: number): boolean {
    return this.#statements.abandonId.run(id).changes > 0;
  }

  /** Takes directories that have been deleted out of the removal journal. */
  forgetRemovals(removals: readonly Removal[]): void {
    for (const { id, part } of removals) this.#statements.forgetRemoval.run(id, part);
  }

  /** The parent of a snapshot that is committed: its own, or one that is given to a snapshot without any. */
  #parentOf(active: FoundSnapshot, given: string | null): Pick<FoundSnapshot, 'parentId' | 'parent'> {
    if (given === null) return active;
    if (active.parentId !== null && active.parent !== given) {
      throw new SnapshotError(
        'INVALID_ARGUMENT',
        `${quote(active.name)} has another parent than ${quote(given)}`,
      );
    }
    return { parentId: this.#findParent(given, 'FAILED_PRECONDITION').id, parent: given };
  }

  #findParent(parent: string, code: 'INVALID_ARGUMENT' | 'FAILED_PRECONDITION'): FoundSnapshot {
    const found = this.#reader.lookUp(parent);
    if (found === undefined) throw new SnapshotError('NOT_FOUND', `there is no parent ${quote(parent)}`);
    if (found.kind === 'committed') return found;
    throw new SnapshotError(code, `the parent ${quote(parent)} is not committed but ${describeKind(found)}`);
  }

  #delete({ id, name }: FoundSnapshot): Removal {
    const child = this.#reader.firstChild(id);
    if (child !== undefined) {
      throw new SnapshotError(
        'FAILED_PRECONDITION',
        `${quote(name)} has children, ${quote(child)} for one: remove them first`,
      );
    }
    this.#statements.deleteSnapshot.run(id);
    return { id, part: 'all' };
  }

  #addLabels(id: number, labels: Labels): void {
    if (Object.keys(labels).length > 0) this.#statements.insertLabels.run(id, JSON.stringify(labels));
  }
}

function toValues(id: number, parentId: number | null, commit: Commit): CommittedValues {
  const { name, usage, seal, inUse } = commit;
  return {
    id,
    name,
    parentId,
    us: nowUs(),
    inodes: usage.inodes,
    size: usage.size,
    seal,
    inUse: inUse === null ? null : inUse ? 1 : 0,
  };
}

/** The record of a snapshot that has just been committed, without reading it back. */
function toCommitted(
  { id, us }: CommittedValues,
  parent: string | null,
  { name, labels, seal, inUse }: Commit,
): SnapshotRecord {
  return {
    id,
    name,
    kind: 'committed',
    parent,
    labels: inOrder(labels),
    created: new Date(us / 1000),
    updated: new Date(us / 1000),
    createdUs: us,
    updatedUs: us,
    seal,
    inUse,
    volatile: false,
  };
}

/** Labels in the order of their keys, as the database gives them. */
function inOrder(labels: Labels): Labels {
  return Object.fromEntries(Object.entries(labels).toSorted(([a], [b]) => (a < b ? -1 : 1)));
}
