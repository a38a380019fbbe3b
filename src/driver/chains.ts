import { SnapshotError } from '../errors.ts';
import type { RowReader } from '../metadata/row-reader.ts';
import type { FoundSnapshot } from '../metadata/rows.ts';
import type { Transactor } from '../metadata/transactor.ts';
import { quote } from '../quote.ts';

/** How much text is kept at most, in characters: a chain of 500 layers has some thirty thousand. */
const KEPT_CHARACTERS = 8 * 1024 * 1024;

/** The ancestors of a snapshot. */
export interface Chain {
  /** Their ids, nearest first, joined by the separator of the mount table. */
  readonly lowers: string;
  readonly depth: number;
}

const NO_ANCESTORS: Chain = { lowers: '', depth: 0 };

/**
 * The ancestors of snapshots, by parent. A chain is read once as long as it is kept: the ancestors of a committed snapshot
 * never change, and an id is never used twice. Entries that a rolled-back transaction may have read are discarded.
 */
export class Chains {
  readonly #reader: RowReader;
  readonly #transactor: Transactor;
  readonly #separator: string;
  readonly #kept = new Map<number, Chain>();
  #characters = 0;
  #rollbacks = 0;

  constructor(reader: RowReader, transactor: Transactor, separator: string) {
    this.#reader = reader;
    this.#transactor = transactor;
    this.#separator = separator;
  }

  /**
   * The ancestors of a snapshot.
   *
   * @throws {SnapshotError} NOT_FOUND if the snapshot has been removed meanwhile
   * @throws {SnapshotError} DATA_LOSS if only the row of its parent is missing
   */
  ancestorsOf({ name, parentId }: Pick<FoundSnapshot, 'name' | 'parentId'>): Chain {
    if (parentId === null) return NO_ANCESTORS;
    if (this.#rollbacks !== this.#transactor.rollbacks) this.#discard();
    const kept = this.#kept.get(parentId);
    if (kept !== undefined) return kept;
    const lowers = this.#reader.lowers(parentId, this.#separator);
    if (lowers === '') {
      this.#reader.find(name);
      throw new SnapshotError('DATA_LOSS', `the parent of ${quote(name)} is missing`);
    }
    if (this.#characters + lowers.length > KEPT_CHARACTERS) this.#discard();
    const chain = { lowers, depth: lowers.split(this.#separator).length };
    this.#kept.set(parentId, chain);
    this.#characters += lowers.length;
    return chain;
  }

  #discard(): void {
    this.#rollbacks = this.#transactor.rollbacks;
    this.#kept.clear();
    this.#characters = 0;
  }
}
