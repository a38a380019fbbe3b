import { execFileSync } from 'node:child_process';
import { chmodSync, existsSync, mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test as base, expect } from 'vitest';
import { type DriverOptions, MetadataStore, OverlayDriver } from '../../src/index.ts';
import { mountPointsNow } from './mount-points.ts';
import { type Example, copyExample, makeExample } from './damage.ts';
import { Examiner } from './examiner.ts';
import { assertSound, assertWhole } from './store.ts';

/** What a test can ask for. Each is made when a test names it, and taken away after it. */
export interface Fixtures {
  /** An empty directory of the test's own. It fails a test to leave a mount in it. */
  place: string;
  /** Where a store can be, in `place`. If there is one when the test ends, it has to be whole. */
  root: string;
  /** How `driver` is opened: `test.override({ driverOptions: … })` sets it for a file or a `describe`. */
  driverOptions: DriverOptions;
  /** A driver on `root`, closed after the test. */
  driver: OverlayDriver;
  /** An empty directory in `place`, to mount on. */
  target: string;
  /** The checkout, read-only, at a path that an ordinary user can reach wherever it lies. Only root can have it. */
  checkout: string;
  /** A closed store with one of everything, in `place`. A test may damage it, so it is not checked afterwards. */
  example: Example;
  /** The path of a database of metadata alone, in `place`. If there is one when the test ends, it has to be whole. */
  databaseFile: string;
  /** A store of metadata on `databaseFile`, closed after the test. */
  store: MetadataStore;
  /** Adds a step to take after the test, before the driver is closed. The step added last is taken first. */
  undo: (step: () => unknown) => void;
}

/** What the tests of a file share. */
interface SharedFixtures {
  /** An empty directory. */
  sharedPlace: string;
  /** What `example` is a copy of. */
  intactExample: Example;
  /** A process that checks stores. */
  examiner: Examiner;
}

/** Vitest's `test`, with a store and what goes with it. */
export const test = base.extend<{ $test: Fixtures; $file: SharedFixtures }>({
  // oxlint-disable-next-line no-empty-pattern -- Vitest reads the names of what a fixture needs from its parameter.
  place: async ({}, use) => {
    const place = mkdtempSync(join(tmpdir(), 'overlite-test-'));
    await use(place);
    const left = mountPointsNow().filter((mountPoint) => mountPoint.startsWith(`${place}/`));
    for (const mountPoint of left.toReversed()) execFileSync('umount', ['-l', mountPoint]);
    rmSync(place, { recursive: true, force: true });
    expect(left).toEqual([]);
  },
  root: async ({ place }, use) => {
    const root = join(place, 'store');
    await use(root);
    if (existsSync(join(root, 'metadata.db'))) assertWhole(root);
  },
  driverOptions: { backups: false },
  driver: async ({ root, driverOptions }, use) => {
    const driver = await OverlayDriver.open(root, driverOptions);
    await use(driver);
    await driver.close();
  },
  target: async ({ place }, use) => {
    const target = join(place, 'target');
    mkdirSync(target);
    await use(target);
  },
  checkout: async ({ place }, use) => {
    const checkout = join(place, 'checkout');
    mkdirSync(checkout);
    chmodSync(place, 0o755);
    // Read-only, so that nothing that deletes `place` can delete what is in it.
    execFileSync('mount', ['-o', 'bind,ro', join(import.meta.dirname, '../..'), checkout]);
    await use(checkout);
    execFileSync('umount', [checkout]);
  },
  sharedPlace: [
    // oxlint-disable-next-line no-empty-pattern -- as above
    async ({}, use) => {
      const place = mkdtempSync(join(tmpdir(), 'overlite-test-'));
      await use(place);
      rmSync(place, { recursive: true });
    },
    { scope: 'file' },
  ],
  intactExample: [
    async ({ sharedPlace }, use) => {
      await use(await makeExample(join(sharedPlace, 'example')));
    },
    { scope: 'file' },
  ],
  examiner: [
    // oxlint-disable-next-line no-empty-pattern -- as above
    async ({}, use) => {
      const examiner = new Examiner();
      await use(examiner);
      examiner.end();
    },
    { scope: 'file' },
  ],
  example: async ({ place, intactExample }, use) => {
    await use(copyExample(intactExample, join(place, 'example')));
  },
  databaseFile: async ({ place }, use) => {
    const file = join(place, 'metadata.db');
    await use(file);
    if (existsSync(file)) assertSound(file);
  },
  store: async ({ databaseFile }, use) => {
    const store = await MetadataStore.open(databaseFile);
    await use(store);
    store.close();
  },
  undo: async ({ root: _afterwards }, use) => {
    const steps: (() => unknown)[] = [];
    await use((step) => steps.push(step));
    for (const step of steps.toReversed()) await step();
  },
});
