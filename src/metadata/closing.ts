import { SnapshotError } from '../errors.ts';

/** How long others' locks are waited for once a store is being closed, in milliseconds: longer than writes take. */
const PATIENCE_MS = 1000;

/** Whether a store is being closed: then no call begins any more, and those under way do not wait for long. */
export class Closing {
  #until = Infinity;

  /** The store is being closed from now on. */
  begin(): void {
    this.#until = Math.min(this.#until, performance.now() + PATIENCE_MS);
  }

  /** @throws {SnapshotError} FAILED_PRECONDITION if the store is being closed */
  checkOpen(): void {
    if (this.#until < Infinity) throw closed();
  }

  /** @throws {SnapshotError} FAILED_PRECONDITION if a call that waits for another's lock is to give up */
  checkPatience(): void {
    if (performance.now() >= this.#until) throw closed();
  }
}

function closed(): SnapshotError {
  return new SnapshotError('FAILED_PRECONDITION', 'the driver is closed');
}
