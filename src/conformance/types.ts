import type { Mount, Snapshotter } from '../snapshot.ts';

/** A store of the snapshotter under test, empty and of its own. */
export interface Store {
  readonly snapshotter: Snapshotter;
  /** Closes the store, checks it if the runner wants to, and removes it. */
  close(): Promise<void>;
}

/** What the suite needs from its runner. */
export interface Conformance {
  open(): Promise<Store>;
  /** Performs mounts on a fresh directory, calls `fn` with it, and undoes them. Without it, nothing is mounted. */
  readonly withMount?: (mounts: readonly Mount[], fn: (target: string) => Promise<void>) => Promise<void>;
}

/** One case: `run` throws if the snapshotter does not keep the contract. */
export interface ConformanceCase {
  readonly name: string;
  readonly run: () => Promise<void>;
}
