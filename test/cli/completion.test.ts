import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, symlinkSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { beforeEach, describe, expect, test } from 'vitest';
import { commandLine, main } from '../support/cli.ts';
import { useExample } from '../support/damage.ts';
import { isRoot } from '../support/needs.ts';
import { missing } from '../support/tree.ts';

const needs = isRoot ? '' : ' (needs root)';

const example = useExample();
const { overlite, printed, json } = commandLine(example);

/** What may come next, without the descriptions, behind the sort of files that come into question. */
function complete(...words: string[]): string[] {
  return printed('complete', '--', ...words)
    .trimEnd()
    .split('\n')
    .map((line) => line.replace(/\t.*/, ''));
}

describe.skipIf(!isRoot)(`what may come next${needs}`, () => {
  test('is a command, an option or one of its values', () => {
    expect(complete('che')).toEqual(['none', 'checkpoint', 'check']);
    expect(complete('--v')).toEqual(['none', '--version']);
    expect(complete('')).toContain('list');
    expect(complete('')).not.toContain('complete');
    expect(complete('list', '--k')).toEqual(['none', '--kind']);
    expect(complete('ls', '--kind', 'a')).toEqual(['none', 'active']);
    expect(complete('list', '--kind=v')).toEqual(['none', '--kind=view']);
    expect(complete('completion', 'z')).toEqual(['none', 'zsh']);
    expect(complete('nonsense', '')).toEqual(['none']);
    expect(overlite('completion', 'tcsh')).toMatchObject({ status: 2 });
  });

  test('is a key, a name or a file, as the argument wants it', () => {
    expect(complete('info', '')).toEqual(['none', 'base', 'app', 'work', 'scratch', 'reader', 'empty']);
    expect(complete('remove', '')).toEqual(['none', 'work', 'scratch', 'reader', 'empty']);
    expect(complete('remove', 'work', 's')).toEqual(['none', 'scratch']);
    expect(complete('delete', '--json', 'b')).toEqual(['none', 'base']);
    expect(complete('commit', '')).toEqual(['none']);
    expect(complete('commit', 'new', 'w')).toEqual(['none', 'work']);
    expect(complete('commit', '--parent', 'a')).toEqual(['none', 'app']);
    expect(complete('diff', 'work', 'ba')).toEqual(['none', 'base']);
    expect(complete('mount', 'work', '')).toEqual(['directories']);
    expect(complete('backup', '/tm')).toEqual(['files']);
    expect(complete('run', 'work', '--', '')).toEqual(['files']);
    expect(complete('info', 'work', '')).toEqual(['none']);
    expect(complete('info', '--', '-')).toEqual(['none']);
  });

  test('is of the store that was named, and nothing where there is none', () => {
    const other = join(example.parent, 'other');
    printed('prepare', 'elsewhere', '--root', other);
    expect(complete('info', '--root', other, '')).toEqual(['none', 'elsewhere']);
    expect(complete('info', `--root=${other}`, '')).toEqual(['none', 'elsewhere']);
    expect(complete('info', '--root', join(example.parent, 'nowhere'), '')).toEqual(['none']);
  });

  test('leaves out names that a shell could take for something else', () => {
    printed('prepare', 'two\nlines', 'app');
    printed('prepare', '(.*)[', 'app');
    expect(complete('info', 't')).toEqual(['none']);
    expect(complete('info', '(.')).toEqual(['none', '(.*)[']);
  });
});

const START = {
  bash: { argv: ['bash', '--norc', '--noprofile', '-i'], script: 'overlite.bash', first: '' },
  zsh: {
    argv: ['zsh', '-f', '-i'],
    script: '_overlite',
    first: 'autoload -Uz compinit; compinit -u -D; ',
  },
  fish: { argv: ['fish', '--no-config', '-i'], script: 'overlite.fish', first: '' },
} as const;

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
        if not select.select([fd], [], [], 30)[0]:
            sys.exit(seen.decode('utf8', 'replace'))
        seen += os.read(fd, 65536)
    return seen
for number, line in enumerate(sys.stdin.read().split('\\n')):
    os.write(fd, line.encode() + f'\\necho end "of" {number}\\n'.encode())
    read_until(f'end of {number}'.encode())
`;

describe.each(Object.entries(START))('in %s', (shell, { argv, script, first }) => {
  const lacking = [...(isRoot ? [] : ['root']), ...missing(shell, 'python3')];
  const lacks = lacking.length === 0 ? '' : ` (needs ${lacking.join(', ')})`;
  let bin: string;
  beforeEach(() => {
    bin = join(example.parent, 'bin');
    mkdirSync(bin);
    symlinkSync(main, join(bin, 'overlite'));
  });

  test.skipIf(lacking.length > 0)(`typed names come out right, and nothing is evaluated${lacks}`, () => {
    const hostile = `$(touch ${example.parent}/evaluated)`;
    for (const key of ['my work', 'x:y=z', hostile]) printed('prepare', key, 'app');
    const file = fileURLToPath(new URL(`../../completions/${script}`, import.meta.url));
    const lines = [
      `${first}source '${file}'`,
      ...['my\t', 'x:y\t', '"my\t', '\\$\t', 'scr\t'].map(
        (typed) => `overlite label ${typed} seen-by=${shell}`,
      ),
      `overlite lab\tscratch done=yes`,
    ];
    execFileSync('python3', ['-c', DRIVER, ...argv], {
      input: lines.join('\n'),
      env: { ...process.env, PATH: `${bin}:${process.env['PATH']}`, OVERLITE_ROOT: example.root },
    });
    const seen = (name: string): unknown => json('label', '--', name);
    expect(seen('my work')).toEqual({ 'seen-by': shell });
    expect(seen('x:y=z')).toEqual({ 'seen-by': shell });
    expect(seen(hostile)).toEqual({ 'seen-by': shell });
    expect(seen('scratch')).toEqual({ 'seen-by': shell, done: 'yes' });
    expect(existsSync(join(example.parent, 'evaluated'))).toBe(false);
  });
});
