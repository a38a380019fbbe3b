import { chmodSync, chownSync, mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { expect } from 'vitest';
import { OverlayDriver } from '../../src/index.ts';
import { findOpenAncestor } from '../../src/layers/ancestors.ts';
import { test } from '../support/fixtures.ts';
import { needs } from '../support/needs.ts';
import { waitFor } from '../support/wait-for.ts';

const lacking = needs('root');

test('findOpenAncestor() finds none above a root that only root and its user can replace', ({ place }) => {
  expect(findOpenAncestor(join(place, 'store'))).toBeUndefined();
});

test('findOpenAncestor() finds a directory that others may write to, unless it is sticky', ({ place }) => {
  const above = join(place, 'above');
  mkdirSync(above);
  for (const [mode, open] of [
    [0o755, false],
    [0o775, true],
    [0o757, true],
    [0o1777, false],
  ] as const) {
    chmodSync(above, mode);
    const why = `its mode is ${mode.toString(8).padStart(4, '0')}`;
    expect(findOpenAncestor(join(above, 'store'))).toEqual(open ? { path: above, why } : undefined);
  }
});

test.skipIf(lacking)(
  `open() warns once of a root that somebody else can replace, and opens it${lacking}`,
  async ({ place, undo }) => {
    const warnings: string[] = [];
    const listen = ({ message }: Error): void => void warnings.push(message);
    process.on('warning', listen);
    undo(() => process.off('warning', listen));
    const above = join(place, 'theirs');
    mkdirSync(join(above, 'ours'), { recursive: true });
    chownSync(above, 4711, 4711);
    for (const _ of [1, 2]) {
      await using driver = await OverlayDriver.open(join(above, 'ours', 'store'), { backups: false });
      await driver.prepare(`k${warnings.length}`);
      await waitFor('the warning', () => warnings.length > 0);
    }
    expect(warnings).toEqual([expect.stringMatching(/in the place of .*theirs": it belongs to user 4711$/)]);
  },
);
