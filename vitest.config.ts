import { spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { defineConfig } from 'vitest/config';
import { BaseSequencer, type TestSpecification } from 'vitest/node';

// Where that can be had, each file is in namespaces of its own, and two of them run side by side: they wait for the
// disk a lot.
const apart = spawnSync('unshare', ['--mount', '--pid', '--fork', '--mount-proc', 'true']).status === 0;
if (apart) {
  process.env['TEST_NODE'] = process.execPath;
  // What child processes are forked with.
  process.execPath = fileURLToPath(new URL('test/support/worker.sh', import.meta.url));
}

// Every start of Node reads them, which takes a third of it, and nothing here goes where they would be needed.
delete process.env['NODE_EXTRA_CA_CERTS'];

/** Begins with what takes longest, or the others would have ended long before it. */
class LongestFirst extends BaseSequencer {
  override sort(files: TestSpecification[]): Promise<TestSpecification[]> {
    const isLongest = ({ moduleId }: TestSpecification): boolean => moduleId.endsWith('crash/sweep.test.ts');
    return Promise.resolve(files.toSorted((a, b) => Number(isLongest(b)) - Number(isLongest(a))));
  }
}

/** Where child processes find their program: see `test/support/worker-program.ts`. */
const workerProgram = fileURLToPath(new URL('test/support/worker-program.ts', import.meta.url));

export default defineConfig({
  resolve: { alias: [{ find: /.*\/worker-program\.ts$/, replacement: workerProgram }] },
  test: {
    include: ['test/**/*.test.ts'],
    globalSetup: 'test/support/bundle.ts',
    // Real mounts, real processes and real disks: slow machines are given time, nothing is timed.
    testTimeout: 60_000,
    hookTimeout: 60_000,
    pool: 'forks',
    fileParallelism: apart,
    maxWorkers: 2,
    sequence: { sequencer: LongestFirst },
    coverage: { include: ['src/**'], reporter: ['text', 'html'] },
  },
});
