import type { RowReader } from './row-reader.ts';
import type { RowWriter } from './row-writer.ts';
import type { Removal } from './rows.ts';
import type { WriteQueue } from './write-queue.ts';

/** How many entries of the journal are read at a time. */
const PAGE = 1000;

/** The removal journal, for the code that deletes directories. Its writes may use the spare space. */
export class RemovalJournal {
  readonly #reader: RowReader;
  readonly #writer: RowWriter;
  readonly #queue: WriteQueue;

  constructor(reader: RowReader, writer: RowWriter, queue: WriteQueue) {
    this.#reader = reader;
    this.#writer = writer;
    this.#queue = queue;
  }

  /** Whether this is still to be deleted from disk. */
  isDeleting(removal: Removal): boolean {
    return this.#reader.isDeleting(removal);
  }

  /** Some of the directories that are to be deleted, in the order of ids, from after an id on. */
  removals(afterId: number): Removal[] {
    return this.#reader.removals(afterId, PAGE);
  }

  /** How many removals are still to be carried out on disk. */
  pendingRemovals(): number {
    return this.#reader.pendingRemovals();
  }

  /** The ids that are reserved for copies, under way or abandoned. */
  reservations(): number[] {
    return this.#reader.reservations();
  }

  /** Moves a reserved id to those that are to be deleted. Whether it was still reserved. */
  abandon(id: number): Promise<boolean> {
    return this.#queue.write(() => this.#writer.abandonId(id), { frees: true });
  }

  /** Takes directories that have been deleted out of the journal, durably. */
  forget(removals: readonly Removal[]): Promise<void> {
    return this.#queue.write(() => this.#writer.forgetRemovals(removals), { frees: true });
  }
}
