import { SnapshotError } from '../errors.ts';
import type { Found } from '../metadata/reader.ts';
import type { MetadataStore } from '../metadata/store.ts';
import { quote } from '../names.ts';

/** How many chains are kept. Each has up to 500 layers, and then some thirty thousand characters. */
const KEPT = 256;

/** What a snapshot stands on. */
export interface Chain {
  /** The ids of its ancestors, nearest first, with the mount table's `between` put between each two. */
  readonly lowers: string;
  readonly depth: number;
}

const NOTHING: Chain = { lowers: '', depth: 0 };

/**
 * What snapshots stand on, by their parents. A chain is read once as long as it is kept: what is committed never comes
 * to stand on something else, and an id is never used twice. Only what a transaction saw and then took back is of no use.
 */
export class Chains {
  readonly #store: MetadataStore;
  readonly #between: string;
  readonly #kept = new Map<number, Chain>();
  #rollbacks = 0;

  constructor(store: MetadataStore, between: string) {
    this.#store = store;
    this.#between = between;
  }

  /**
   * What a snapshot stands on.
   *
   * @throws {SnapshotError} NOT_FOUND if the snapshot has vanished meanwhile
   * @throws {SnapshotError} DATA_LOSS if its parent has, alone
   */
  below({ name, parentId }: Pick<Found, 'name' | 'parentId'>): Chain {
    if (parentId === null) return NOTHING;
    if (this.#rollbacks !== this.#store.rollbacks) {
      this.#rollbacks = this.#store.rollbacks;
      this.#kept.clear();
    }
    const kept = this.#kept.get(parentId);
    if (kept !== undefined) return kept;
    const lowers = this.#store.lowers(parentId, this.#between);
    if (lowers === '') {
      this.#store.find(name);
      throw new SnapshotError('DATA_LOSS', `the parent of ${quote(name)} is missing`);
    }
    const chain = { lowers, depth: lowers.split(this.#between).length };
    for (const oldest of this.#kept.keys()) {
      if (this.#kept.size < KEPT) break;
      this.#kept.delete(oldest);
    }
    this.#kept.set(parentId, chain);
    return chain;
  }
}
