import { execFileSync } from 'node:child_process';
import { mkdirSync, renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect } from 'vitest';
import { hasHidden } from '../../src/quote.ts';
import { test as base } from '../support/cli.ts';
import { needs } from '../support/needs.ts';

/** A file name that renames a terminal, clears it, and reverses the direction of what follows. */
const ODD = 'm\u001B]0;x\u0007\u001B[2J\u202E\u009B31m';

/** How it is shown. */
const SHOWN = String.raw`m\u001b]0;x\u0007\u001b[2J\u202e\u009b31m`;

const test = base.extend<{
  /** Runs a command, and gives all that it prints, which must have nothing but visible lines. */
  visible: (...args: string[]) => string;
}>({
  visible: async ({ overlite }, use) =>
    use((...args) => {
      const { stdout, stderr } = overlite(...args);
      const hidden = (stdout + stderr).split(/[\n\t]/).filter(hasHidden);
      expect({ args, hidden }).toEqual({ args, hidden: [] });
      return stdout + stderr;
    }),
});

const lacking = needs('root', 'script');

describe.skipIf(lacking)(`what commands print${lacking}`, () => {
  test('control and invisible characters in names are escaped in all output', ({ printed, overlite }) => {
    const hidden = ['c1\u009B31m', 'right to left\u202E', 'line\u2028'];
    for (const key of hidden) printed('prepare', key, 'app');
    const listed = printed('list', 'kind==active');
    for (const key of hidden) {
      expect(listed).not.toContain(key);
      expect(overlite('prepare', key).stderr).not.toContain(key);
    }
    const removed = printed('remove', ...hidden)
      .trimEnd()
      .split('\n');
    expect(removed.map((line) => JSON.parse(line.replace(' is removed', '')) as unknown)).toEqual(hidden);
  });

  test('commands take a name that begins with a dash and has control characters', ({ printed, json }) => {
    const odd = '-\u001B[31m\nname';
    printed('prepare', '--', odd, 'app');
    expect(printed('list', 'kind==active')).toContain(String.raw`"-\u001b[31m\nname"`);
    expect(json('info', '--', odd)).toMatchObject({ name: odd });
    expect(printed('remove', '--', odd)).toBe(`${JSON.stringify(odd)} is removed\n`);
  });

  test('file names in layers are escaped by everything that names them', ({ example, visible }) => {
    const layer = example.at('snapshots', example.ids.work, 'fs');
    writeFileSync(join(layer, ODD), 'x');
    writeFileSync(
      Buffer.concat([Buffer.from(`${layer}/no-`), Buffer.from([0xff]), Buffer.from('-utf8')]),
      'x',
    );
    expect(visible('diff', 'work')).toContain(`A "/${SHOWN}"\n`);
    expect(visible('diff', 'work')).toContain(String.raw`A "/no-\xff-utf8"`);
    const changes = JSON.parse(visible('diff', 'work', '--json')) as { path: string }[];
    expect(changes.map(({ path }) => path)).toContain(`/${ODD}`);
    expect(visible('usage')).toContain('work');
  });

  test('what lies in the store and what is moved to lost+found is escaped', ({ example, visible }) => {
    mkdirSync(example.at('snapshots', ODD));
    writeFileSync(example.at('snapshots', example.ids.work, ODD), 'x');
    expect(visible('check')).toContain(`"${SHOWN}" is not named like the directory of a snapshot`);
    expect(JSON.parse(visible('check', '--json'))).toMatchObject({
      findings: expect.arrayContaining([
        expect.objectContaining({ path: example.at('snapshots', ODD) }),
        expect.objectContaining({ path: example.at('snapshots', example.ids.work, ODD) }),
      ]) as unknown,
    });
    expect(visible('check', '--repair')).toContain(`repaired: directory-unknown "`);
    expect(
      execFileSync('sh', ['-c', 'cat *.note'], { cwd: example.at('lost+found'), encoding: 'utf8' }),
    ).toSatisfy((notes: string) => notes.includes(SHOWN) && !notes.split('\n').some(hasHidden));
  });

  test('names of mounts, which anybody may choose, are escaped', ({ example, place, visible, undo }) => {
    const target = join(place, ODD);
    mkdirSync(target);
    execFileSync('mount', ['--bind', example.at('snapshots', example.ids.work), target]);
    undo(() => execFileSync('umount', [target]));
    expect(visible('remove', 'work')).toContain(`/${SHOWN}`);
    expect(visible('cleanup')).toContain(`/${SHOWN}`);
    expect(JSON.parse(visible('cleanup', '--json'))).toMatchObject({
      deferred: [{ reason: expect.stringContaining(SHOWN) as string }],
    });
    expect(visible('check')).toContain(`/${SHOWN}`);
  });

  test('labels, targets, arguments and roots are escaped in results and errors', ({
    example,
    place,
    visible,
    bash,
  }) => {
    visible('label', 'app', `${ODD}=${ODD}`);
    for (const command of ['label', 'info', 'list', 'tree', 'graph', 'usage']) visible(command, 'app');
    visible('info', 'app', '--json');
    visible('list', '--json', `labels.${ODD}`);
    expect(visible('list', `labels.${ODD}`)).toContain('INVALID_ARGUMENT');
    expect(visible('info', ODD)).toContain(`there is no snapshot "${SHOWN}"`);
    expect(visible('info', ODD, '--json')).toContain('NOT_FOUND');
    expect(visible('info', '--debug', ODD)).toContain('at ');
    expect(visible('info', `--${ODD}`)).toContain(`unknown option '--${SHOWN}'`);
    expect(visible(ODD)).toContain(`unknown command '${SHOWN}'`);
    expect(visible('unmount', `/${ODD}`)).toContain(SHOWN);
    expect(visible('run', 'base', ODD)).toContain(`"${SHOWN}" cannot be run: ENOENT`);
    expect(visible('backup', `/nowhere/${ODD}/file`)).toContain(`/${SHOWN}`);
    const root = join(place, ODD);
    expect(visible('check', '--root', root)).toContain(SHOWN);
    renameSync(example.root, root);
    for (const command of ['list', 'info work', 'check', 'cleanup', 'backup ./copy', 'restore'])
      visible(...command.split(' '), '--root', root);
    const line = visible('mounts', 'work', join(place, ODD), '--root', root).trimEnd();
    expect(bash(`printf %s ${line.split(' ').find((word) => word.startsWith("$'")) ?? ''}`).stdout).toContain(
      ODD,
    );
    renameSync(root, example.root);
  });

  test('`list` has colours on a terminal that can show them, unless NO_COLOR is set', ({ inTerminal }) => {
    expect(inTerminal('list')).toContain('\u001B[32mactive\u001B[39m');
    expect(inTerminal('list', { NO_COLOR: '1' })).not.toContain('\u001B[');
    expect(inTerminal('list', { TERM: 'dumb' })).not.toContain('\u001B[');
  });
});
