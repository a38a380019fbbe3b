import { spawnSync } from 'node:child_process';
import { randomInt } from 'node:crypto';
import { fileURLToPath } from 'node:url';
import { defineConfig } from 'vitest/config';
import { BaseSequencer, type TestSpecification } from 'vitest/node';
import { inNamespaces, namespaces } from './test/support/pool.ts';

/** The files that take longest, in this order: they begin first, or the others would have ended long before them. */
const LONGEST = ['e2e/containerd', 'conformance/overlay-driver', 'crash/sweep', 'containerd/load', 'cli/run'];

class LongestFirst extends BaseSequencer {
  override sort(files: TestSpecification[]): Promise<TestSpecification[]> {
    const rank = ({ moduleId }: TestSpecification): number => {
      const index = LONGEST.findIndex((name) => moduleId.endsWith(`test/${name}.test.ts`));
      return index < 0 ? LONGEST.length : index;
    };
    return Promise.resolve(files.toSorted((a, b) => rank(a) - rank(b)));
  }
}

/** Whether namespaces can be made here; where not, nothing can be mounted either. */
const canUnshare = spawnSync('unshare', [...namespaces, 'true']).status === 0;

// What is sampled differs from run to run: see `test/support/sample.ts`.
process.env['TEST_SEED'] ??= String(randomInt(1_000_000_000));

// Every start of Node reads them, which takes a third of it, and nothing here goes where they would be needed.
delete process.env['NODE_EXTRA_CA_CERTS'];

/** Where child processes find their program: see `test/support/worker-program.ts`. */
const workerProgram = fileURLToPath(new URL('test/support/worker-program.ts', import.meta.url));

export default defineConfig({
  resolve: { alias: [{ find: /.*\/worker-program\.ts$/, replacement: workerProgram }] },
  test: {
    include: ['test/**/*.test.ts'],
    globalSetup: 'test/support/global-setup.ts',
    // Nothing is timed: the limits end what hangs, however slow the machine is.
    testTimeout: 600_000,
    hookTimeout: 600_000,
    pool: canUnshare ? inNamespaces : 'forks',
    // Two files at a time, for they wait for the disk a lot.
    maxWorkers: 2,
    sequence: { sequencer: LongestFirst },
    coverage: { include: ['src/**'], reporter: ['text', 'html'] },
  },
});
