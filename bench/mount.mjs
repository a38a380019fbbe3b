// Times mounts and unmounts beside those of mount(8), and how long they hold the event loop while much waits to be
// written. Wants root. usage: node bench/mount.mjs [DIRECTORY]
import { execFile } from 'node:child_process';
import { appendFileSync, mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { promisify } from 'node:util';
import { Bench } from 'tinybench';
import { OverlayDriver } from '../dist/index.js';
import { mount, openMount, unmount } from '../dist/mount/index.js';

const run = promisify(execFile);
const directory = mkdtempSync(join(process.argv[2] ?? tmpdir(), 'overlite-bench-'));
const driver = await OverlayDriver.open(`${directory}/root`, { durability: 'metadata', asyncRemove: true });
const target = `${directory}/target`;
mkdirSync(target);

/** Opens a snapshot on a chain of so many layers. */
async function stack(depth) {
  for (let number = 1; number <= depth; number += 1) {
    if (await driver.exists(`layer-${number}`)) continue;
    await driver.prepare('in work', number === 1 ? null : `layer-${number - 1}`);
    await driver.commit(`layer-${number}`, 'in work');
  }
  return driver.prepare(`on-${depth}`, `layer-${depth}`);
}

try {
  const bench = new Bench({ time: 1500, warmupTime: 150 });
  for (const depth of [1, 20, 128, 500]) {
    const mounts = await stack(depth);
    bench.add(`${depth} layers: mount and unmount`, async () => {
      await mount(mounts, target);
      await unmount(target);
    });
    bench.add(`${depth} layers: detached`, async () => {
      const detached = await openMount(mounts);
      await detached.close();
    });
    bench.add(`${depth} layers: mount(8) and umount(8)`, async () => {
      await mount(mounts, target, { by: 'mount(8)' });
      await run('umount', [target]);
    });
  }
  await bench.run();
  console.table(
    bench.table(({ name, result }) => ({
      operation: name,
      'median µs': (result.latency.p50 * 1000).toFixed(0),
      'p99 µs': (result.latency.p99 * 1000).toFixed(0),
      samples: result.latency.samplesCount,
    })),
  );

  const targets = await Promise.all(
    Array.from({ length: 64 }, async (_, i) => {
      await driver.prepare(`of-${i}`, 'layer-20');
      mkdirSync(`${target}-${i}`);
      return `${target}-${i}`;
    }),
  );
  const megabyte = Buffer.alloc(1024 * 1024, 'x');
  for (let i = 0; i < 500; i += 1) appendFileSync(`${directory}/dirty`, megabyte);
  await sleep(50);
  let longest = 0;
  let last = performance.now();
  const watch = setInterval(() => {
    const now = performance.now();
    longest = Math.max(longest, now - last);
    last = now;
  }, 1);
  const begun = performance.now();
  await Promise.all(targets.map((path, i) => driver.mount(`of-${i}`, path)));
  await Promise.all(targets.map((path) => driver.unmount(path)));
  clearInterval(watch);
  console.log(
    `64 mounts and unmounts at once with 500 MB to be written: ${(performance.now() - begun).toFixed(0)} ms, ` +
      `the event loop held for ${longest.toFixed(1)} ms at the most`,
  );
} finally {
  await driver.close();
  rmSync(directory, { recursive: true, force: true });
}
