import { SnapshotError } from '../errors.ts';
import type { Removal } from '../metadata/reader.ts';
import { checkName } from '../arguments.ts';
import { quote } from '../quote.ts';
import type {
  Info,
  Mount,
  PrepareOptions,
  SealedCommitOptions,
  UpdateOptions,
  ViewOptions,
} from '../snapshot.ts';
import { type Operations, checkUse, toCommitOptions, toMakeArguments } from './operations.ts';

/**
 * What the function of a transaction gets: the driver's methods with the same semantics, returning at once. What one
 * of them throws has changed nothing, and may be caught to go on without it.
 */
export class Transaction {
  readonly #operations: Operations;
  readonly #isSeal: (seal: object) => boolean;
  readonly #prepared = new Set<string>();
  readonly #removals: Removal[] = [];
  #ended = false;

  /** For the driver, not for users. */
  constructor(operations: Operations, isSeal: (seal: object) => boolean) {
    this.#operations = operations;
    this.#isSeal = isSeal;
  }

  /** @throws {SnapshotError} as `Snapshotter.prepare` */
  prepare(key: string, parent?: string | null, options?: PrepareOptions): Mount[] {
    const mounts = this.#open().make('active', toMakeArguments('active', key, parent, options));
    this.#prepared.add(key);
    return mounts;
  }

  /** @throws {SnapshotError} as `Snapshotter.view` */
  view(key: string, parent?: string | null, options?: ViewOptions): Mount[] {
    return this.#open().make('view', toMakeArguments('view', key, parent, options));
  }

  /**
   * Seals an active snapshot, with what `driver.seal(key)` gave for it. A key that was prepared in this transaction
   * needs no seal.
   *
   * @throws {SnapshotError} as `Snapshotter.commit`
   * @throws {SnapshotError} FAILED_PRECONDITION if there is no seal, or it is another snapshot's
   */
  commit(name: string, key: string, options?: SealedCommitOptions): Info {
    const operations = this.#open();
    const checked = toCommitOptions(options, ['labels', 'parent', 'inUse', 'seal'], ['allow', 'refuse']);
    checkName(name, 'name');
    checkName(key, 'key');
    const { seal } = checked;
    if (seal !== undefined && (typeof seal !== 'object' || seal === null || !this.#isSeal(seal))) {
      throw new TypeError('a seal must be what driver.seal(key) gave');
    }
    if (seal !== undefined) checkUse(seal, checked.inUse ?? 'allow');
    if (
      seal === undefined &&
      !this.#prepared.has(key) &&
      isActive(operations, key) &&
      !operations.exists(name)
    ) {
      throw new SnapshotError('FAILED_PRECONDITION', `${quote(key)} is not sealed`, {
        hint: 'await driver.seal(key) before the transaction, and give commit its result',
      });
    }
    const info = operations.commit(name, key, checked);
    this.#prepared.delete(key);
    this.#removals.push({ id: info.id, part: 'work' });
    return info;
  }

  /** @throws {SnapshotError} as `Snapshotter.remove` */
  remove(key: string): void {
    this.#removals.push(this.#open().remove(key));
    this.#prepared.delete(key);
  }

  /** @throws {SnapshotError} as `Snapshotter.delete` */
  delete(name: string): void {
    this.#removals.push(this.#open().delete(name));
  }

  /** @throws {SnapshotError} as `Snapshotter.update` */
  update(keyOrName: string, options: UpdateOptions, fieldpaths?: readonly string[]): Info {
    return this.#open().update(keyOrName, options, fieldpaths);
  }

  /** @throws {SnapshotError} as `Snapshotter.stat` */
  stat(keyOrName: string): Info {
    return this.#open().stat(keyOrName);
  }

  /** Whether there is a snapshot of that key or name, of any kind. */
  exists(keyOrName: string): boolean {
    return this.#open().exists(keyOrName);
  }

  /** @throws {SnapshotError} as `Snapshotter.parent` */
  parent(keyOrName: string): string | null {
    return this.#open().parent(keyOrName);
  }

  /** For the driver: nothing more may come, and what is to be deleted once this is durable. */
  end(): readonly Removal[] {
    this.#ended = true;
    return this.#removals;
  }

  #open(): Operations {
    if (this.#ended) throw new SnapshotError('FAILED_PRECONDITION', 'the transaction is over');
    return this.#operations;
  }
}

function isActive(operations: Operations, key: string): boolean {
  return operations.exists(key) && operations.stat(key).kind === 'active';
}
