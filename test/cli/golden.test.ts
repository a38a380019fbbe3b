import { execFileSync } from 'node:child_process';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { program } from '../../src/cli/program.ts';
import { helpOf } from '../../src/cli/command.ts';
import { commandLine } from '../support/cli.ts';
import { useExample } from '../support/damage.ts';
import { isRoot } from '../support/needs.ts';
import { missing, sh } from '../support/tree.ts';

const needs = isRoot ? '' : ' (needs root)';

const example = useExample();
const { overlite, printed } = commandLine(example);

/** Compares with a file that shows what people get to see. `npx vitest -u` writes it anew. */
async function matches(text: string, file: string): Promise<void> {
  await expect(text).toMatchFileSnapshot(join('golden', file));
}

/** A text without what is another each time. */
function still(text: string): string {
  return text
    .replaceAll(example.parent, '/srv')
    .replaceAll(/\d{4}-\d\d-\d\dT[\d:.]+Z/g, '2026-01-02T03:04:05.678Z')
    .replaceAll(/\b\d+s\b/g, '0s')
    .replaceAll(/^(mounts .* )\d+ checked/gm, '$1n checked')
    .replaceAll(/metadata1:[0-9a-f]{64}/g, 'metadata1:…');
}

describe('the help', () => {
  test('of the program', () => matches(printed('--help'), 'help.txt'));

  test.each(program.commands.map((command) => command.name()))('of %s', async (name) => {
    const help = printed(name, '--help');
    expect(help).toMatch(/^Exit status: /m);
    const command = program.commands.find((one) => one.name() === name);
    const examples = command === undefined ? [] : helpOf(command).examples;
    expect(examples.length).toBeGreaterThanOrEqual(2);
    for (const line of examples) expect(help).toContain(`  $ ${line}\n`);
    expect(examples.join(' ')).toContain(`overlite ${name}`);
    await matches(help, `help-${name}.txt`);
  });

  const lacking = missing('man');
  test.skipIf(lacking.length > 0)(`as a manual page${lacking.length > 0 ? ' (needs man)' : ''}`, async () => {
    const page = printed('man');
    await matches(page.replace(/"overlite [\d.]+"/, '"overlite"'), 'overlite.1');
    const shown = execFileSync('man', ['--warnings=all', '-l', '-'], {
      input: page,
      encoding: 'utf8',
      env: { ...process.env, MANWIDTH: '100' },
    });
    for (const command of program.createHelp().visibleCommands(program)) {
      if (helpOf(command).examples.length > 0)
        expect(shown).toMatch(new RegExp(`^ {3}overlite ${command.name()}\\b`, 'm'));
    }
  });
});

describe.skipIf(!isRoot)(`what people are shown${needs}`, () => {
  test('of a store', async () => {
    for (const args of [
      ['list'],
      ['tree'],
      ['info', 'app'],
      ['usage'],
      ['label', 'base'],
      ['mounts', 'work', '/mnt'],
      ['graph'],
      ['graph', 'app', '--format', 'mermaid'],
      ['check'],
    ]) {
      await matches(still(printed(...args)), `${args.filter((arg) => /^\w/.test(arg)).join('-')}.txt`);
    }
  });

  test('of what has changed', async () => {
    sh(
      `echo new > 'a file'; mkdir more; echo x > more/file; mkdir etc; cp --preserve=all ../../1/fs/etc/hosts etc
       chmod 600 etc/hosts; ln -s file more/link; mknod app c 0 0`,
      example.at('snapshots', example.ids.work, 'fs'),
    );
    await matches(printed('diff', 'work'), 'diff-work.txt');
    await matches(printed('diff', 'work', '--json'), 'diff-work-json.txt');
  });

  test('of damage and its repair', async () => {
    sh(
      `rm -r ${example.at('snapshots', example.ids.app, 'fs')} && mkdir ${example.at('snapshots', 99)}`,
      '/',
    );
    for (const more of [[], ['--repair', '--dry-run'], ['--repair']]) {
      const { stdout, stderr } = overlite('check', ...more);
      expect(stderr).toBe('');
      await matches(still(stdout), `check-damaged${more.join('')}.txt`);
    }
  });
});
