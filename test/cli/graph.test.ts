import { describe, expect } from 'vitest';
import { test } from '../support/cli.ts';
import { needs } from '../support/needs.ts';

const lacking = needs('root');

describe.skipIf(lacking)(`overlite graph${lacking}`, () => {
  test('`graph` and `usage` follow a commit onto a younger base', ({ printed, json }) => {
    printed('prepare', 'old');
    printed('prepare', 'new');
    printed('commit', 'base-2', 'new');
    printed('commit', 'child', 'old', '--parent', 'base-2');
    expect(json('usage', 'child', 'base-2')).toMatchObject([
      { own: { inodes: 1 }, chain: { inodes: 2 } },
      { freesWithDescendants: { inodes: 2 } },
    ]);
    expect(json('graph', 'base-2')).toMatchObject({
      nodes: [{ name: 'base-2' }, { name: 'child' }],
      edges: [{ from: expect.any(Number) }],
    });
    expect(printed('graph').match(/->/g)).toHaveLength(4);
  });
});
