import { checkName } from '../arguments.ts';
import { SnapshotError, toSnapshotError, wrongType } from '../errors.ts';
import type { Removal } from '../metadata/rows.ts';
import { quote } from '../quote.ts';
import type {
  Info,
  Mount,
  PrepareOptions,
  Seal,
  SealedCommitOptions,
  Transaction,
  UpdateOptions,
  ViewOptions,
} from '../snapshot.ts';
import { toPrepareRequest, toSealedCommitRequest, toUpdateRequest, toViewRequest } from './arguments.ts';
import { type Operations, checkInUse } from './operations.ts';
import type { Resources } from './resources.ts';

/** The transaction that is open: what its function gets. */
export class OpenTransaction implements Transaction {
  readonly #resources: Resources;
  readonly #operations: Operations;
  readonly #seals: WeakSet<object>;
  readonly #prepared = new Set<string>();
  readonly #removals: Removal[] = [];
  #ended = false;

  constructor(resources: Resources, operations: Operations, seals: WeakSet<object>) {
    this.#resources = resources;
    this.#operations = operations;
    this.#seals = seals;
  }

  prepare(key: string, parent?: string | null, options?: PrepareOptions): Mount[] {
    const request = toPrepareRequest(key, parent, options);
    const mounts = this.#write(() => this.#operations.prepare(request));
    this.#prepared.add(key);
    return mounts;
  }

  view(key: string, parent?: string | null, options?: ViewOptions): Mount[] {
    const request = toViewRequest(key, parent, options);
    return this.#write(() => this.#operations.prepare(request));
  }

  commit(name: string, key: string, options?: SealedCommitOptions): Info {
    this.#checkOpen();
    const request = toSealedCommitRequest(name, key, options);
    const seal = this.#toSeal(request.seal);
    if (seal !== undefined) checkInUse(seal, request.inUse);
    else if (!this.#prepared.has(key)) this.#refuseUnsealed(name, key);
    const info = this.#write(() => this.#operations.commit(request, seal));
    this.#prepared.delete(key);
    this.#removals.push({ id: info.id, part: 'work' });
    return info;
  }

  remove(key: string): void {
    checkName(key, 'key');
    this.#removals.push(this.#write(() => this.#operations.remove(key)));
    this.#prepared.delete(key);
  }

  delete(name: string): void {
    checkName(name, 'name');
    this.#removals.push(this.#write(() => this.#operations.delete(name)));
  }

  update(keyOrName: string, options: UpdateOptions, fieldpaths?: readonly string[]): Info {
    const request = toUpdateRequest(keyOrName, options, fieldpaths);
    return this.#write(() => this.#operations.update(request));
  }

  stat(keyOrName: string): Info {
    return this.#run(() => this.#operations.stat(checkName(keyOrName, 'key or name')));
  }

  exists(keyOrName: string): boolean {
    const name = checkName(keyOrName, 'key or name');
    return this.#run(() => this.#resources.reader.lookUp(name) !== undefined);
  }

  parent(keyOrName: string): string | null {
    return this.stat(keyOrName).parent;
  }

  /** Ends the use of this object, and gives what is to be deleted once the transaction is durable. */
  end(): readonly Removal[] {
    this.#ended = true;
    return this.#removals;
  }

  /** Runs one operation, so that if it throws, only what it did is rolled back. */
  #write<T>(operation: () => T): T {
    return this.#run(() => this.#resources.transactor.nested(operation));
  }

  /** Runs one step and translates errors of the database. Errors of the transaction's own function stay as they are. */
  #run<T>(body: () => T): T {
    this.#checkOpen();
    try {
      return body();
    } catch (error) {
      throw toSnapshotError(error, 'a transaction');
    }
  }

  #checkOpen(): void {
    if (this.#ended) throw new SnapshotError('FAILED_PRECONDITION', 'the transaction is over');
  }

  #toSeal(value: unknown): Seal | undefined {
    if (value === undefined) return undefined;
    if (typeof value === 'object' && value !== null && this.#seals.has(value)) return value as Seal;
    throw wrongType('a seal must be what driver.seal(key) gave');
  }

  /** A layer that was there before the transaction takes long to seal. Other faults of the call come first. */
  #refuseUnsealed(name: string, key: string): void {
    const { reader } = this.#resources;
    this.#run(() => {
      reader.checkFree(name);
      reader.findActive(key);
    });
    throw new SnapshotError('FAILED_PRECONDITION', `${quote(key)} is not sealed`, {
      hint: 'await driver.seal(key) before the transaction, and give commit its result',
    });
  }
}
