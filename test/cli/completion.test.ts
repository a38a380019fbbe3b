import { execFileSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, vi } from 'vitest';
import { program } from '../../src/cli/program.ts';
import { test as base } from '../support/cli.ts';
import { needs } from '../support/needs.ts';

const lacking = needs('root');

/** What `complete` prints without the descriptions: the sort of files that come into question, then the words. */
const toWords = (printed: string): string[] =>
  printed
    .trimEnd()
    .split('\n')
    .map((line) => line.replace(/\t.*/, ''));

const test = base.extend<{ complete: (...words: string[]) => Promise<string[]> }>({
  // In this process: a process for each question would take a hundred times as long.
  complete: async ({ storeRoot }, use) => {
    vi.stubEnv('OVERLITE_ROOT', storeRoot);
    await use(async (...words) => {
      let printed = '';
      const write = vi.spyOn(process.stdout, 'write').mockImplementation((text) => {
        printed += String(text);
        return true;
      });
      try {
        await program.parseAsync(['complete', '--', ...words], { from: 'user' });
      } finally {
        write.mockRestore();
      }
      return toWords(printed);
    });
    vi.unstubAllEnvs();
  },
});

describe.skipIf(lacking)(`overlite complete${lacking}`, () => {
  test('`complete` prints commands, options and the values of options', async ({ complete, overlite }) => {
    expect(await complete('che')).toEqual(['none', 'checkpoint', 'check']);
    expect(await complete('--v')).toEqual(['none', '--version']);
    expect(await complete('')).toContain('list');
    expect(await complete('')).not.toContain('complete');
    expect(await complete('list', '--k')).toEqual(['none', '--kind']);
    expect(await complete('ls', '--kind', 'a')).toEqual(['none', 'active']);
    expect(await complete('list', '--kind=v')).toEqual(['none', '--kind=view']);
    expect(await complete('completion', 'z')).toEqual(['none', 'zsh']);
    expect(await complete('nonsense', '')).toEqual(['none']);
    expect(overlite('completion', 'tcsh')).toMatchObject({ status: 2 });
  });

  test('`complete` prints keys, names or a kind of file, whichever the argument takes', async ({
    complete,
  }) => {
    expect(await complete('info', '')).toEqual(['none', 'base', 'app', 'work', 'scratch', 'reader', 'empty']);
    expect(await complete('remove', '')).toEqual(['none', 'work', 'scratch', 'reader', 'empty']);
    expect(await complete('remove', 'work', 's')).toEqual(['none', 'scratch']);
    expect(await complete('delete', '--json', 'b')).toEqual(['none', 'base']);
    expect(await complete('commit', '')).toEqual(['none']);
    expect(await complete('commit', 'new', 'w')).toEqual(['none', 'work']);
    expect(await complete('commit', '--parent', 'a')).toEqual(['none', 'app']);
    expect(await complete('diff', 'work', 'ba')).toEqual(['none', 'base']);
    expect(await complete('mount', 'work', '')).toEqual(['directories']);
    expect(await complete('backup', '/tm')).toEqual(['files']);
    expect(await complete('run', 'work', '--', '')).toEqual(['files']);
    expect(await complete('info', 'work', '')).toEqual(['none']);
    expect(await complete('info', '--', '-')).toEqual(['none']);
  });

  test('`complete` prints names of the store that --root or OVERLITE_ROOT names, if there is one', ({
    place,
    printed,
  }) => {
    const other = join(place, 'other');
    printed('prepare', 'elsewhere', '--root', other);
    const complete = (...words: string[]): string[] => toWords(printed('complete', '--', ...words));
    expect(complete('info', '--root', other, '')).toEqual(['none', 'elsewhere']);
    expect(complete('info', `--root=${other}`, '')).toEqual(['none', 'elsewhere']);
    expect(complete('info', '--root', join(place, 'nowhere'), '')).toEqual(['none']);
    expect(complete('info', 'w')).toEqual(['none', 'work']);
  });

  test('`complete` leaves out names that a shell could take for something else', async ({
    complete,
    printed,
  }) => {
    printed('prepare', 'two\nlines', 'app');
    printed('prepare', '(.*)[', 'app');
    expect(await complete('info', 't')).toEqual(['none']);
    expect(await complete('info', '(.')).toEqual(['none', '(.*)[']);
  });
});

/** Types into an interactive shell, in a terminal, line by line: each has come to its end before the next. */
const DRIVER = `
import os, pty, select, sys
pid, fd = pty.fork()
if pid == 0:
    os.environ.update(TERM='dumb', PS1='> ')
    os.execvp(sys.argv[1], sys.argv[1:])
def read_until(mark):
    seen = b''
    while mark not in seen:
        if not select.select([fd], [], [], 120)[0]:
            sys.exit(seen.decode('utf8', 'replace'))
        seen += os.read(fd, 65536)
    return seen
for number, line in enumerate(sys.stdin.read().split('\\n')):
    os.write(fd, line.encode() + f'\\necho end "of" {number}\\n'.encode())
    read_until(f'end of {number}'.encode())
`;

describe.each([
  { shell: 'bash', argv: ['bash', '--norc', '--noprofile', '-i'], script: 'overlite.bash', first: '' },
  {
    shell: 'zsh',
    argv: ['zsh', '-f', '-i'],
    script: '_overlite',
    first: 'autoload -Uz compinit; compinit -u -D; ',
  },
  { shell: 'fish', argv: ['fish', '--no-config', '-i'], script: 'overlite.fish', first: '' },
])('completion in $shell', ({ shell, argv, script, first }) => {
  const lackingShell = needs('root', shell, 'python3');

  test.skipIf(lackingShell)(
    `${shell} completes names with special characters, and evaluates none of them${lackingShell}`,
    ({ place, env, printed, json }) => {
      const hostile = `$(touch ${place}/evaluated)`;
      for (const key of ['my work', 'x:y=z', hostile]) printed('prepare', key, 'app');
      const file = fileURLToPath(new URL(`../../completions/${script}`, import.meta.url));
      const lines = [
        `${first}source '${file}'`,
        ...['my\t', 'x:y\t', '"my\t', '\\$\t', 'scr\t'].map(
          (typed) => `overlite label ${typed} seen-by=${shell}`,
        ),
        `overlite lab\tscratch done=yes`,
      ];
      execFileSync('python3', ['-c', DRIVER, ...argv], { input: lines.join('\n'), env });
      const seen = (name: string): unknown => json('label', '--', name);
      expect(seen('my work')).toEqual({ 'seen-by': shell });
      expect(seen('x:y=z')).toEqual({ 'seen-by': shell });
      expect(seen(hostile)).toEqual({ 'seen-by': shell });
      expect(seen('scratch')).toEqual({ 'seen-by': shell, done: 'yes' });
      expect(existsSync(join(place, 'evaluated'))).toBe(false);
    },
  );
});
