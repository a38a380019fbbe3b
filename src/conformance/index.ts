import { checkpointCases } from './checkpoints.ts';
import { filterCases } from './filters.ts';
import { lifeCases } from './life.ts';
import { mountCases } from './mounting.ts';
import { nameCases } from './names.ts';
import type { Conformance, ConformanceCase } from './types.ts';

export type { Conformance, ConformanceCase, Store } from './types.ts';

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
