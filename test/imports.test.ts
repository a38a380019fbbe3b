import { readFileSync, readdirSync } from 'node:fs';
import { dirname, join, normalize } from 'node:path';
import { expect, test } from 'vitest';

const src = join(import.meta.dirname, '../src');

/** The folders of `src`, each of which may import those before it; those of one line know nothing of each other. */
const ROOMS = [
  ['errors.ts', 'snapshot.ts', 'report.ts', 'quote.ts', 'arguments.ts', 'guarded.ts'],
  ['linux'],
  ['metadata', 'mount'],
  ['layers'],
  ['check'],
  ['driver'],
  ['containerd', 'conformance'],
  ['cli', 'index.ts', 'thread.ts', 'worker.ts'],
];

/** What each file of `src` imports from `src`, types and dynamic imports included. */
const imports = new Map(
  readdirSync(src, { recursive: true, encoding: 'utf8' })
    .filter((file) => file.endsWith('.ts'))
    .map((file) => {
      const text = readFileSync(join(src, file), 'utf8');
      const paths = [...text.matchAll(/(?:from|import\()\s*'(\.[^']+)'/g)].map(([, path = '']) =>
        normalize(join(dirname(file), path)),
      );
      return [file, paths];
    }),
);

function levelOf(file: string): number {
  const [room = ''] = file.split('/');
  const level = ROOMS.findIndex((rooms) => rooms.includes(room));
  if (level < 0) throw new Error(`${file} is in no room: add its folder to ROOMS`);
  return level;
}

test('imports between the folders of src point one way', () => {
  const upwards = [...imports].flatMap(([file, paths]) =>
    paths
      .filter((path) => path.split('/')[0] !== file.split('/')[0])
      .filter((path) => levelOf(path) >= levelOf(file) && levelOf(file) > 0)
      .map((path) => `${file} imports ${path}`),
  );
  expect(imports.size).toBeGreaterThan(100);
  expect(upwards).toEqual([]);
});

test('the words of the contract import nothing but each other', () => {
  const [words = []] = ROOMS;
  for (const word of words) {
    for (const path of imports.get(word) ?? []) expect(words, `${word} imports ${path}`).toContain(path);
  }
});

test('no module of src imports itself through others', () => {
  const circles: string[] = [];
  const finished = new Set<string>();
  const visit = (file: string, way: readonly string[]): void => {
    if (way.includes(file)) circles.push([...way.slice(way.indexOf(file)), file].join(' -> '));
    if (way.includes(file) || finished.has(file)) return;
    for (const path of imports.get(file) ?? []) visit(path, [...way, file]);
    finished.add(file);
  };
  for (const file of imports.keys()) visit(file, []);
  expect(circles).toEqual([]);
});

test('no source names a file that the build makes', () => {
  for (const file of imports.keys()) {
    expect(readFileSync(join(src, file), 'utf8'), file).not.toMatch(/['"`/]dist\//);
  }
});
