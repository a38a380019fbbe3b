import { existsSync, readFileSync, readdirSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { expect, test } from 'vitest';

const top = join(import.meta.dirname, '../..');

const pages = ['.', 'docs'].flatMap((directory) =>
  readdirSync(join(top, directory))
    .filter((name) => name.endsWith('.md'))
    .map((name) => join(directory, name)),
);

const folders = readdirSync(top, { withFileTypes: true })
  .filter((entry) => entry.isDirectory())
  .map(({ name }) => name.replaceAll('.', '\\.'));

/** A path in a folder of the project, as prose names it. */
const named = new RegExp(`(?<![\\w./-])(?:${folders.join('|')})/[\\w./@-]*`, 'g');

test.each(pages)('every file that %s names or links to exists', (page) => {
  const prose = readFileSync(join(top, page), 'utf8').replaceAll(/^```[^]*?^```$/gm, '');
  const links = [...prose.matchAll(/\]\((?!https?:|#)([^)#]+)/g)].map(([, link = '']) =>
    join(dirname(page), link),
  );
  const paths = [...prose.matchAll(named)].map(([path]) => path.replace(/\.$/, ''));
  expect([...links, ...paths].filter((path) => !existsSync(join(top, path)))).toEqual([]);
});

test('CONTRIBUTING.md names every folder of src', () => {
  const text = readFileSync(join(top, 'CONTRIBUTING.md'), 'utf8');
  for (const entry of readdirSync(join(top, 'src'), { withFileTypes: true })) {
    if (entry.isDirectory()) expect(text).toContain(`\`src/${entry.name}/\``);
  }
});
