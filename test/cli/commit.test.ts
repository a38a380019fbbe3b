import { describe, expect } from 'vitest';
import { test } from '../support/cli.ts';
import { needs } from '../support/needs.ts';

const lacking = needs('root');

describe.skipIf(lacking)(`overlite commit and checkpoint${lacking}`, () => {
  test('`checkpoint` commits a copy of an active snapshot, and `commit` the snapshot itself', ({
    printed,
    json,
  }) => {
    printed('prepare', 'fork', 'app');
    expect(printed('checkpoint', 'fork-1', 'fork')).toMatch(/^fork-1 is committed: 1 inodes, /);
    expect(json('view', 'look', 'fork-1')).toMatchObject({ parent: 'fork-1' });
    expect(json('commit', 'fork-2', 'fork', '--seal', 'content', '--in-use', 'refuse')).toMatchObject({
      name: 'fork-2',
      kind: 'committed',
      usage: { inodes: 1 },
      seal: expect.stringMatching(/^metadata1:\S+ content2:/),
    });
  });
});
