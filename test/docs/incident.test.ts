import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { expect } from 'vitest';
import { type CommandLine, test } from '../support/cli.ts';
import { needs } from '../support/needs.ts';

const page = fileURLToPath(new URL('../../docs/incident.md', import.meta.url));
const PROMPT = '$ ';
const MARK = '--- end of a command ---';

test.override('storeRoot', ({ root }) => root);

/** Types the commands of a page, one after the other in the same shell, and gives the page with what they print. */
function typeAgain(text: string, { srv, bash }: { srv: string; bash: CommandLine['bash'] }): string {
  const commands = text.split('\n').filter((line) => line.startsWith(PROMPT));
  const script = commands.map((line) => `${line.slice(PROMPT.length)}\necho '${MARK}'\n`).join('');
  const { status, stdout } = bash(`exec 2>&1\ncd ${srv}\n${script.replaceAll('/srv', srv)}`);
  expect(status).toBe(0);
  const outputs = stdout.replaceAll(srv, '/srv').split(`${MARK}\n`);
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

const lacking = needs('root');

test.skipIf(lacking)(`docs/incident.md shows what its commands print${lacking}`, ({ place, bash }) => {
  const srv = join(place, 'srv');
  mkdirSync(srv);
  const text = readFileSync(page, 'utf8');
  const again = typeAgain(text, { srv, bash });
  // With this set, the page is written again.
  if (process.env['UPDATE_DOCS'] === '1') writeFileSync(page, again);
  else expect(still(again)).toBe(still(text));
});
