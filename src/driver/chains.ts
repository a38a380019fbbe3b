import { SnapshotError } from '../errors.ts';
import type { Found } from '../metadata/reader.ts';
import type { MetadataStore } from '../metadata/store.ts';
import { quote } from '../quote.ts';

/** How long the chains that are kept may be together, in characters: one of 500 layers has some thirty thousand. */
const KEPT_CHARACTERS = 8 * 1024 * 1024;

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
  #characters = 0;
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
    if (this.#rollbacks !== this.#store.rollbacks) this.#forget();
    const kept = this.#kept.get(parentId);
    if (kept !== undefined) return kept;
    const lowers = this.#store.lowers(parentId, this.#between);
    if (lowers === '') {
      this.#store.find(name);
      throw new SnapshotError('DATA_LOSS', `the parent of ${quote(name)} is missing`);
    }
    if (this.#characters + lowers.length > KEPT_CHARACTERS) this.#forget();
    const chain = { lowers, depth: lowers.split(this.#between).length };
    this.#kept.set(parentId, chain);
    this.#characters += lowers.length;
    return chain;
  }

  #forget(): void {
    this.#rollbacks = this.#store.rollbacks;
    this.#kept.clear();
    this.#characters = 0;
  }
}
