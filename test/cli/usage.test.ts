import { rmSync } from 'node:fs';
import { describe, expect } from 'vitest';
import { test } from '../support/cli.ts';
import { needs } from '../support/needs.ts';

const lacking = needs('root');

describe.skipIf(lacking)(`overlite usage${lacking}`, () => {
  test('`usage` adds up what snapshots hold and what removing them frees', ({ printed, json }) => {
    expect(json('usage', 'base', 'work')).toMatchObject([
      { name: 'base', own: { inodes: 4 }, frees: { size: 0 }, freesWithDescendants: { inodes: 8 } },
      { name: 'work', own: { inodes: 2 }, chain: { inodes: 8 }, frees: { inodes: 2 } },
    ]);
    expect(printed('usage', 'app')).toMatch(/^NAME .* FREES {2}WITH DESCENDANTS\napp .* 0 B +16\.0 KiB\n$/);
  });

  test('`usage` and `info` print what is known of a snapshot whose layer is lost', ({
    example,
    printed,
    json,
  }) => {
    rmSync(example.at('snapshots', example.ids.work), { recursive: true });
    expect(json('usage', 'work')).toMatchObject([{ own: null, chain: null, frees: null }]);
    expect(json('usage', 'base')).toMatchObject([{ own: { inodes: 4 }, freesWithDescendants: null }]);
    expect(printed('usage')).toMatch(/^work +active +- +- +- +- +-$/m);
    expect(json('info', 'work')).toMatchObject({ usage: null });
    expect(printed('info', 'work')).toMatch(/^usage +-$/m);
  });
});
