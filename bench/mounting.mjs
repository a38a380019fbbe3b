// Mounts and unmounts beside those of mount(8), and how long they hold the event loop while much waits to be written.
import { execFile } from 'node:child_process';
import { appendFileSync, mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { promisify } from 'node:util';
import { OverlayDriver } from '../dist/index.js';
import { mount, openMount, unmount } from '../dist/mount/index.js';
import { measure } from './measure.mjs';

const run = promisify(execFile);
const MEGABYTE = Buffer.alloc(1024 * 1024, 'x');

/** Measures mounts of chains of layers. Wants root: without it, there is nothing to measure. */
export async function mounting(directory, options) {
  if (process.geteuid?.() !== 0) {
    process.stderr.write('mounts are left out: they want root\n');
    return [];
  }
  const root = join(directory, 'root');
  mkdirSync(root, { recursive: true, mode: 0o700 });
  const driver = await OverlayDriver.open(root, {
    durability: 'metadata',
    asyncRemove: true,
    backups: false,
  });
  const target = join(directory, 'target');
  mkdirSync(target);
  const figures = [];
  try {
    for (const depth of options.quick ? [1, 20] : [1, 20, 128, 500]) {
      const mounts = await stack(driver, depth);
      const add = async (what, operation) => {
        figures.push(await measure(`mounting/${what}@depth${depth}`, operation, options));
      };
      await add('mount-and-unmount', async () => {
        await mount(mounts, target);
        await unmount(target);
      });
      await add('detached', async () => (await openMount(mounts)).close());
      await add('mount(8)', async () => {
        await mount(mounts, target, { by: 'mount(8)' });
        await run('umount', [target]);
      });
    }
    figures.push(...(await manyAtOnce(driver, directory, options.quick ? 50 : 500)));
    return figures;
  } finally {
    await driver.close();
  }
}

/** Opens a snapshot on a chain of so many layers. */
async function stack(driver, depth) {
  for (let number = 1; number <= depth; number += 1) {
    if (await driver.exists(`layer-${number}`)) continue;
    await driver.prepare('in work', number === 1 ? null : `layer-${number - 1}`);
    await driver.commit(`layer-${number}`, 'in work');
  }
  return driver.prepare(`on-${depth}`, `layer-${depth}`);
}

/** 64 mounts and unmounts at once while so many megabytes wait to be written: all of it, and the longest that it held the event loop. */
async function manyAtOnce(driver, directory, megabytes) {
  const targets = await Promise.all(
    Array.from({ length: 64 }, async (_, i) => {
      await driver.prepare(`of-${i}`, 'layer-20');
      const path = join(directory, `target-${i}`);
      mkdirSync(path);
      return path;
    }),
  );
  for (let i = 0; i < megabytes; i += 1) appendFileSync(join(directory, 'dirty'), MEGABYTE);
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
  const single = (name, milliseconds) => ({
    name,
    median: milliseconds * 1000,
    p99: milliseconds * 1000,
    min: milliseconds * 1000,
    samples: 1,
  });
  return [
    single('mounting/64-at-once', performance.now() - begun),
    single('mounting/64-at-once-longest-hold', longest),
  ];
}
