import { mkdirSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { outputFileSync } from 'fs-extra/esm';
import { describe, expect } from 'vitest';
import { test as base } from '../support/cli.ts';

const test = base.extend<{ source: string; temporary: string }>({
  source: async ({ place }, use) => {
    const source = join(place, 'source');
    for (const name of ['one', 'two', 'three', 'sub/four']) outputFileSync(join(source, name), name);
    await use(source);
  },
  temporary: async ({ place }, use) => {
    const temporary = join(place, 'tmp');
    mkdirSync(temporary, { mode: 0o777 });
    await use(temporary);
  },
});
test.override('storeRoot', ({ root }) => root);
test.override('variables', ({ temporary }) => ({ TMPDIR: temporary }));

describe('overlite demo', () => {
  test('`demo` shows the tree, the layers and the times, and leaves nothing behind', ({
    source,
    temporary,
    printed,
  }) => {
    const said = printed('demo', source);
    for (const line of ['├─ alice-1  (committed', '│  ├─ carol  (active)', 'bob', 'What took how long']) {
      expect(said).toContain(line);
    }
    expect(readdirSync(temporary)).toEqual([]);
  });

  test('`demo` on a non-directory fails with INVALID_ARGUMENT, and creates nothing', ({
    place,
    temporary,
    overlite,
  }) => {
    const { status, stderr } = overlite('demo', join(place, 'missing'));
    expect(status).toBe(1);
    expect(stderr).toMatch(/^overlite: INVALID_ARGUMENT: .* is not a directory\n$/);
    expect(readdirSync(temporary)).toEqual([]);
  });
});
