import { execFileSync } from 'node:child_process';
import { join } from 'node:path';
import { describe, expect } from 'vitest';
import { program } from '../../src/cli/program.ts';
import { helpOf } from '../../src/cli/command.ts';
import { test } from '../support/cli.ts';
import { needs } from '../support/needs.ts';
import { sh } from '../support/tree.ts';

/** Compares with a file that shows what people get to see. `npx vitest -u` writes it anew. */
async function matches(text: string, file: string): Promise<void> {
  await expect(text).toMatchFileSnapshot(join('golden', file));
}

/** A text about what is in `place`, without what is another each time. */
function still(text: string, place: string): string {
  return text
    .replaceAll(join(place, 'example'), '/srv/store')
    .replaceAll(/\d{4}-\d\d-\d\dT[\d:.]+Z/g, '2026-01-02T03:04:05.678Z')
    .replaceAll(/\b\d+s\b/g, '0s')
    .replaceAll(/^(mounts .* )\d+ checked/gm, '$1n checked')
    .replaceAll(/metadata1:[0-9a-f]{64}/g, 'metadata1:…');
}

/** What `--help` prints, in this process: only the first test starts one of its own. */
function help(name: string): string {
  let printed = '';
  const command = program.commands.find((one) => one.name() === name) ?? program;
  command.configureOutput({ writeOut: (text) => (printed += text), getOutHelpWidth: () => 80 });
  expect(() => program.parse([name, '--help'], { from: 'user' })).toThrow(
    expect.objectContaining({ code: 'commander.helpDisplayed', exitCode: 0 }),
  );
  return printed;
}

describe('help', () => {
  test.override('storeRoot', ({ root }) => root);

  test('the help of the program matches golden/', ({ printed }) => matches(printed('--help'), 'help.txt'));

  test.for(program.commands.map((command) => command.name()))(
    'the help of `%s` matches golden/, with examples and exit statuses',
    async (name) => {
      const text = help(name);
      expect(text).toMatch(/^Exit status: /m);
      const command = program.commands.find((one) => one.name() === name);
      const examples = command === undefined ? [] : helpOf(command).examples;
      expect(examples.length).toBeGreaterThanOrEqual(2);
      for (const line of examples) expect(text).toContain(`  $ ${line}\n`);
      expect(examples.join(' ')).toContain(`overlite ${name}`);
      await matches(text, `help-${name}.txt`);
    },
  );

  const lacking = needs('man');
  test.skipIf(lacking)(
    `the manual page matches golden/, and \`man\` shows it without a warning${lacking}`,
    async ({ printed }) => {
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
    },
  );
});

const lacking = needs('root');

describe.skipIf(lacking)(`what people are shown${lacking}`, () => {
  test('commands that read a store print what is in golden/', async ({ place, together }) => {
    const ended = await together(
      ['list'],
      ['tree'],
      ['info', 'app'],
      ['usage'],
      ['label', 'base'],
      ['mounts', 'work', '/mnt'],
      ['graph'],
      ['graph', 'app', '--format', 'mermaid'],
      ['check'],
    );
    for (const { args, status, stdout, stderr } of ended) {
      expect({ args, status, stderr }).toEqual({ args, status: 0, stderr: '' });
      await matches(still(stdout, place), `${args.filter((arg) => /^\w/.test(arg)).join('-')}.txt`);
    }
  });

  test('`diff` prints what is in golden/', async ({ example, printed }) => {
    sh(
      `echo new > 'a file'; mkdir more; echo x > more/file; mkdir etc; cp --preserve=all ../../1/fs/etc/hosts etc
       chmod 600 etc/hosts; ln -s file more/link; mknod app c 0 0`,
      example.at('snapshots', example.ids.work, 'fs'),
    );
    await matches(printed('diff', 'work'), 'diff-work.txt');
    await matches(printed('diff', 'work', '--json'), 'diff-work-json.txt');
  });

  test('`check` prints damage and its repair as in golden/', async ({ place, example, overlite }) => {
    sh(
      `rm -r ${example.at('snapshots', example.ids.app, 'fs')} && mkdir ${example.at('snapshots', 99)}`,
      '/',
    );
    for (const more of [[], ['--repair', '--dry-run'], ['--repair']]) {
      const { stdout, stderr } = overlite('check', ...more);
      expect(stderr).toBe('');
      await matches(still(stdout, place), `check-damaged${more.join('')}.txt`);
    }
  });
});
