import { execFileSync } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { expect } from 'vitest';
import { test } from './support/fixtures.ts';

// fs-extra is for the demo: loading it takes more than half as long as loading the driver.

const dist = fileURLToPath(new URL('../dist/', import.meta.url));

/** Runs a built module with arguments, and gives the CommonJS packages that it had loaded when it ended. */
function packagesLoadedBy(place: string, module: string, ...args: string[]): string[] {
  const output = join(place, 'packages');
  const preloaded = join(place, 'list-packages.cjs');
  writeFileSync(
    preloaded,
    `process.on('exit', () => {
       const names = Object.keys(require.cache).map((path) => path.split('/node_modules/').at(-1).split('/')[0]);
       require('node:fs').writeFileSync(${JSON.stringify(output)}, JSON.stringify([...new Set(names)]));
     });`,
  );
  execFileSync(process.execPath, ['--require', preloaded, join(dist, module), ...args]);
  return JSON.parse(readFileSync(output, 'utf8')) as string[];
}

test.for([
  ['index.js', 'better-sqlite3'],
  ['metadata/index.js', 'better-sqlite3'],
  ['mount/index.js', '@koromix'],
] as const)('an import of %s loads %s, and not fs-extra', ([module, other], { place }) => {
  const packages = packagesLoadedBy(place, module);
  expect(packages).toContain(other);
  expect(packages).not.toContain('fs-extra');
  expect(packages).not.toContain('graceful-fs');
});

test('a command that works on a store does not load fs-extra', ({ driver: _made, place, root }) => {
  const packages = packagesLoadedBy(place, 'cli/main.js', 'ls', '--root', root);
  expect(packages).toContain('better-sqlite3');
  expect(packages).not.toContain('fs-extra');
  expect(packages).not.toContain('graceful-fs');
});

test('the demo loads fs-extra', ({ place, target }) => {
  const packages = packagesLoadedBy(place, 'cli/main.js', 'demo', target);
  expect(packages).toContain('fs-extra');
  expect(packages).toContain('graceful-fs');
});
