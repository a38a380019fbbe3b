import { describe, test } from 'vitest';
import { conformanceCases } from '../../src/conformance/index.ts';
import { type DriverOptions, OverlayDriver } from '../../src/index.ts';
import { withMount } from '../support/mount.ts';
import { needs } from '../support/needs.ts';
import { sample } from '../support/sample.ts';
import { assertWhole, makeRoot } from '../support/store.ts';

const optionSets: readonly DriverOptions[] = [
  ...sample<DriverOptions>([{}], { some: 1, others: 0 }),
  ...sample<DriverOptions>(
    [
      { durability: 'metadata' },
      { asyncRemove: true },
      { remapIds: true },
      { upperdirLabel: true },
      { mountOptions: ['xino=off'] },
      { seal: 'content' },
    ],
    { some: 2, others: 2 },
  ),
];

const lacking = needs('root');

describe.skipIf(lacking).each(optionSets)(`OverlayDriver with %j${lacking}`, (options) => {
  const cases = conformanceCases({
    async open() {
      const { root, remove } = makeRoot();
      const snapshotter = await OverlayDriver.open(root, options);
      return {
        snapshotter,
        async close() {
          await snapshotter.close();
          try {
            assertWhole(root);
          } finally {
            remove();
          }
        },
      };
    },
    withMount,
  });
  for (const { name, run } of cases) test(`OverlayDriver with ${JSON.stringify(options)}: ${name}`, run);
});
