import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { conformanceCases } from '../../src/conformance/index.ts';
import { serve } from '../../src/containerd/index.ts';
import { OverlayDriver } from '../../src/index.ts';
import { withMount } from '../support/mount.ts';
import { needs } from '../support/needs.ts';
import { RemoteSnapshotter } from '../support/remote-snapshotter.ts';
import { assertWhole, makeRoot } from '../support/store.ts';

/** Everything that arrives is of the right type, and one call removes what is open and what is committed. */
const notOnTheWire = new Set([
  'a value that is not text is a TypeError',
  'remove() takes open snapshots, delete() committed ones',
]);

const lacking = needs('root');

describe.skipIf(lacking)(`the contract over gRPC${lacking}`, () => {
  const cases = conformanceCases({
    async open() {
      const { root, remove } = makeRoot();
      // That the contents of layers are durable is not what these are about, and takes half of their time.
      const driver = await OverlayDriver.open(join(root, 'store'), {
        asyncRemove: 'background',
        durability: 'metadata',
      });
      const server = await serve(driver, { address: join(root, 'socket') });
      const snapshotter = new RemoteSnapshotter(server.address, driver);
      return {
        snapshotter,
        async close() {
          await snapshotter.close();
          await server.close();
          await driver.close();
          try {
            assertWhole(join(root, 'store'));
          } finally {
            remove();
          }
        },
      };
    },
    withMount,
  });
  const onTheWire = cases.filter(({ name }) => !notOnTheWire.has(name));
  test('only the cases that gRPC cannot express are left out', () => {
    expect(cases.length - onTheWire.length).toBe(notOnTheWire.size);
  });
  for (const { name, run } of onTheWire) test(`over gRPC: ${name}`, run);
});
