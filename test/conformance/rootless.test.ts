import { execFileSync } from 'node:child_process';
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { expect } from 'vitest';
import { test } from '../support/fixtures.ts';
import { needs } from '../support/needs.ts';
import { sh } from '../support/tree.ts';

const lacking = needs('root', 'setpriv', 'unshare');

test.skipIf(lacking)(
  `the whole contract holds for an ordinary user in a user namespace${lacking}`,
  ({ place, checkout }) => {
    const directory = join(place, 'of-the-user');
    mkdirSync(directory);
    sh('chown 65534:65534 .', directory);
    const program = [process.execPath, `${checkout}/test/support/rootless-conformance.mjs`, directory];
    const printed = execFileSync(
      'setpriv',
      ['--reuid=65534', '--regid=65534', '--clear-groups', 'unshare', '-Urm', ...program],
      { cwd: directory, encoding: 'utf8' },
    );
    const { passed, failed } = JSON.parse(printed) as { passed: number; failed: string[] };
    expect(failed).toEqual([]);
    expect(passed).toBeGreaterThan(30);
  },
);
