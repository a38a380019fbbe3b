import { spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { defineConfig } from 'vitest/config';

// Where that can be had, each file is in a mount namespace of its own, and two of them run side by side.
const apart = spawnSync('unshare', ['--mount', 'true']).status === 0;
if (apart) {
  process.env['TEST_NODE'] = process.execPath;
  // What child processes are forked with.
  process.execPath = fileURLToPath(new URL('test/support/worker.sh', import.meta.url));
}

export default defineConfig({
  test: {
    include: ['test/**/*.test.ts'],
    // Real mounts, real processes and real disks: slow machines are given time, nothing is timed.
    testTimeout: 60_000,
    hookTimeout: 60_000,
    pool: 'forks',
    fileParallelism: apart,
    maxWorkers: 2,
    coverage: { include: ['src/**'], reporter: ['text', 'html'] },
  },
});
