// Times the driver's operations on a real disk. usage: npm run bench [-- DIRECTORY]
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Bench } from 'tinybench';
import { OverlayDriver } from '../dist/index.js';

const root = mkdtempSync(join(process.argv[2] ?? tmpdir(), 'overlite-bench-'));
try {
  const driver = await OverlayDriver.open(root, { asyncRemove: true });
  await driver.prepare('in-work');
  await driver.commit('base', 'in-work');
  await driver.prepare('workspace', 'base');
  let n = 0;
  const bench = new Bench({ time: 2000, warmupTime: 200 });
  bench.add('prepare, durable, one at a time', () => driver.prepare(`k${(n += 1)}`, 'base'));
  bench.add('64 prepares at once', async () => {
    await Promise.all(Array.from({ length: 64 }, () => driver.prepare(`k${(n += 1)}`, 'base')));
  });
  bench.add('commit of an empty layer', () => driver.commit(`c${n}`, `k${n}`), {
    beforeEach: () => driver.prepare(`k${(n += 1)}`, 'base'),
  });
  bench.add('stat', () => driver.stat('workspace'));
  bench.add('mounts', () => driver.mounts('workspace'));
  await bench.run();
  console.table(
    bench.table(({ name, result }) => ({
      operation: name,
      'median µs': (result.latency.p50 * 1000).toFixed(1),
      'p99 µs': (result.latency.p99 * 1000).toFixed(1),
      samples: result.latency.samplesCount,
    })),
  );
  await driver.close();
} finally {
  rmSync(root, { recursive: true, force: true });
}
