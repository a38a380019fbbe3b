import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect } from 'vitest';
import type { OverlaySnapshotter } from '../src/index.ts';
import { withMount } from '../src/mount/index.ts';
import { test } from './support/fixtures.ts';
import { needs } from './support/needs.ts';

/** The worked flows of the comment that `src/snapshot.ts` begins with. */
const flows = [
  ...readFileSync(join(import.meta.dirname, '../src/snapshot.ts'), 'utf8')
    .replaceAll(/^ \* ?/gm, '')
    .matchAll(/^```js\n(.*?)^```$/gms),
].map(([, code = '']) => code);

/** Runs code with the names that it uses, and returns what it has printed. */
async function run(code: string, names: Readonly<Record<string, unknown>>): Promise<unknown[][]> {
  const printed: unknown[][] = [];
  const console = { log: (...words: unknown[]) => printed.push(words) };
  const all = { ...names, console };
  const body = `return async function flow({ ${Object.keys(all).join(', ')} }) {\n${code}}`;
  // oxlint-disable-next-line no-implied-eval, typescript/no-implied-eval -- it is the documentation that is run.
  const flow = new Function(body)() as (all: unknown) => Promise<void>;
  await flow(all);
  return printed;
}

const lacking = needs('root');

test.skipIf(lacking)(
  `the flows in snapshot.ts work as they are written${lacking}`,
  async ({ driver, target }) => {
    const snapshotter: OverlaySnapshotter = driver;
    const [base = '', workspace = '', transaction = ''] = flows;
    expect(flows).toHaveLength(3);
    const list = async (): Promise<string[]> => {
      const names: string[] = [];
      for await (const { name, kind, parent } of snapshotter.snapshots())
        names.push(`${name} ${kind} ${parent}`);
      return names;
    };
    const write = (name: string) => (directory: string) => writeFileSync(join(directory, name), name);

    const unpack = (_archive: string, directory: string): void => write('bash')(directory);
    await run(base, { driver, withMount, unpack });
    expect(await list()).toEqual(['debian committed null']);
    expect((await driver.stat('debian')).labels).toEqual({ image: 'debian:12' });

    const build = write('built');
    const printed = await run(workspace, { driver, target, build, verify: write('verified') });
    expect(await list()).toEqual([
      'debian committed null',
      'result-7 committed debian',
      'job-7-built committed debian',
    ]);
    expect(printed).toEqual([
      ['added', '/built'],
      ['added', '/verified'],
    ]);
    const seen = [];
    for await (const { path } of driver.diff('job-7-built')) seen.push(path);
    expect(seen).toEqual(['/built']);

    await run(transaction, { driver, withMount, build: write('more') });
    expect(await list()).toEqual([
      'debian committed null',
      'result-7 committed debian',
      'job-7-built committed debian',
      'result-8 committed result-7',
      'job-9 active result-8',
    ]);
    expect((await driver.stat('result-7')).labels).toEqual({ replaced: 'yes' });
  },
);

test.skipIf(lacking)(
  `the first flow in snapshot.ts leaves nothing behind when it fails${lacking}`,
  async ({ driver }) => {
    const unpack = (): void => {
      throw new Error('not an archive');
    };
    await expect(run(flows[0] ?? '', { driver, withMount, unpack })).rejects.toThrow('not an archive');
    expect(await driver.exists('debian-import')).toBe(false);
  },
);
