import { execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { main } from '../support/cli.ts';
import { isRoot } from '../support/needs.ts';

const page = fileURLToPath(new URL('../../docs/incident.md', import.meta.url));
const PROMPT = '$ ';

let srv: string;
beforeEach(() => {
  srv = mkdtempSync(join(tmpdir(), 'overlite-incident-'));
});
afterEach(() => rmSync(srv, { recursive: true, force: true }));

/** Types the commands of a page, one after the other in the same shell, and gives the page with what they print. */
function typeAnew(text: string): string {
  const bin = join(srv, '.bin');
  mkdirSync(bin);
  symlinkSync(main, join(bin, 'overlite'));
  const commands = text.split('\n').filter((line) => line.startsWith(PROMPT));
  const mark = '--- end of a command ---';
  const script = commands.map((line) => `${line.slice(PROMPT.length)}\necho '${mark}'\n`).join('');
  const printed = execFileSync('bash', ['-c', `exec 2>&1\n${script.replaceAll('/srv', srv)}`], {
    cwd: srv,
    encoding: 'utf8',
    env: { ...process.env, PATH: `${bin}:${process.env['PATH']}` },
  });
  const outputs = printed.replaceAll(srv, '/srv').split(`${mark}\n`);
  const blocks = text.split(/(?<=^```console\n)([^]*?)(?=^```$)/m);
  return blocks
    .map((block, index) => {
      if (index % 2 === 0) return block;
      const typed = block.split('\n').filter((line) => line.startsWith(PROMPT));
      return typed.map((line) => `${line}\n${outputs.shift() ?? ''}`).join('');
    })
    .join('');
}

/** A text without what is another each time. */
function still(text: string): string {
  return text
    .replaceAll(/\d+s\)$/gm, '0s)')
    .replaceAll(/^(mounts .* )\d+ checked$/gm, '$1n checked')
    .replaceAll(/(snapshot-\d+)-\d+-\d+/g, '$1-time-process');
}

test.skipIf(!isRoot)(`the page of an incident is what happens${isRoot ? '' : ' (needs root)'}`, () => {
  const text = readFileSync(page, 'utf8');
  const anew = typeAnew(text);
  // With this set, the page is written anew.
  if (process.env['UPDATE_DOCS'] === '1') writeFileSync(page, anew);
  else expect(still(anew)).toBe(still(text));
});
