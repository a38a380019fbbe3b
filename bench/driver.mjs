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
  const prepared = [];
  const bench = new Bench({ time: 2000, warmupTime: 200 });
  bench.add('prepare, durable, one at a time', async () => {
    prepared.push(`k${(n += 1)}`);
    await driver.prepare(`k${n}`, 'base');
  });
  bench.add('64 prepares at once', async () => {
    await Promise.all(Array.from({ length: 64 }, () => driver.prepare(`k${(n += 1)}`, 'base')));
  });
  bench.add('commit of an empty layer', async () => {
    const key = prepared.pop();
    if (key === undefined) throw new Error('nothing is left to commit');
    await driver.commit(`c-${key}`, key);
  });
  bench.add('stat', () => driver.stat('workspace'));
  bench.add('mounts', () => driver.mounts('workspace'));
  await bench.run();
  console.table(bench.table());
  await driver.close();
} finally {
  rmSync(root, { recursive: true, force: true });
}
