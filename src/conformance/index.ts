import type { Mount, Snapshotter } from '../snapshot.ts';
import { checkpointCases } from './checkpoints.ts';
import { filterCases } from './filters.ts';
import { lifeCases } from './life.ts';
import { mountCases } from './mounting.ts';
import { nameCases } from './names.ts';

/** A store of the snapshotter under test, empty and of its own. */
export interface Store {
  readonly snapshotter: Snapshotter;
  /** Closes it, checks what is to be checked, and takes it away. */
  close(): Promise<void>;
}

/** What the suite needs of the one who runs it. */
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

/** The contract of `Snapshotter` as cases, each on a store of its own, for any test runner. */
export function conformanceCases(options: Conformance): ConformanceCase[] {
  const { withMount } = options;
  const cases = {
    ...lifeCases,
    ...checkpointCases,
    ...nameCases,
    ...filterCases,
    ...(withMount && mountCases(withMount)),
  };
  return Object.entries(cases).map(([name, body]) => ({
    name,
    async run(): Promise<void> {
      const store = await options.open();
      try {
        await body(store.snapshotter);
      } finally {
        await store.close();
      }
    },
  }));
}
