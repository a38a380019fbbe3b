import { defineConfig } from 'vitest/config';

export default defineConfig({
  test: {
    include: ['test/**/*.test.ts'],
    // Real mounts, real processes and real disks: slow machines are given time, nothing is timed.
    testTimeout: 60_000,
    hookTimeout: 60_000,
    pool: 'forks',
    // A mount namespace that one test makes would hold what another has mounted.
    fileParallelism: false,
    coverage: { include: ['src/**'], reporter: ['text', 'html'] },
  },
});
