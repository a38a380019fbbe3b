import { execFileSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { expect } from 'vitest';
import { test } from '../support/fixtures.ts';
import { idsOnDisk } from '../support/layers.ts';
import { needs } from '../support/needs.ts';

const lacking = needs('root');

test.skipIf(lacking)(
  `a layer of 3,000 directories in one another is sealed, copied, compared, committed and deleted with 64 descriptors${lacking}`,
  ({ root }) => {
    const program = fileURLToPath(new URL('../support/deep-layer.mjs', import.meta.url));
    const script = 'ulimit -n 64; exec "$@"';
    const args = ['-c', script, 'sh', process.execPath, program, root, '3000'];
    expect(JSON.parse(execFileSync('sh', args, { encoding: 'utf8' }))).toEqual({
      inodes: 3003,
      changes: [3003, 3003],
      same: true,
      nlink: 2,
      findings: [],
      deletions: [{}, {}],
    });
    expect(idsOnDisk(root)).toEqual(['1']);
  },
);
