import { existsSync, mkdirSync, readFileSync, readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect } from 'vitest';
import { test } from '../support/cli.ts';
import { needs } from '../support/needs.ts';
import { waitFor } from '../support/wait-for.ts';

const lacking = needs('root');

describe.skipIf(lacking)(`overlite check${lacking}`, () => {
  test('`check` reports a clean store', ({ example, printed }) => {
    const said = printed('check');
    expect(said).toContain(`${example.root}: clean`);
    expect(said).toMatch(/^layers +done, \d+ checked$/m);
  });

  test('`check` reports what is damaged, what repair would do, and what to rebuild', ({
    example,
    overlite,
  }) => {
    writeFileSync(example.at('snapshots', example.ids.app, 'fs', 'added'), '');
    mkdirSync(example.at('snapshots', 'stray'));
    const { status, stdout } = overlite('check');
    expect(status).toBe(4);
    expect(stdout).toMatch(/^error: seal-broken: the layer of "app" has changed/m);
    expect(stdout).toMatch(/^warning: directory-unknown: "stray"/m);
    expect(stdout).toContain('  repair would move it to lost+found');
    expect(stdout).toContain('"work" (active), built on "app"');
    expect(overlite('check', '--repair', '--dry-run').stdout).toContain('would repair: directory-unknown');
    expect(readdirSync(example.at('snapshots'))).toContain('stray');
  });

  test('`check --repair` repairs with status 1, after which `check` has status 0', ({
    example,
    overlite,
  }) => {
    mkdirSync(example.at('snapshots', 'stray'));
    const { status, stdout } = overlite('check', '--repair');
    expect(status).toBe(1);
    expect(stdout).toContain('repaired: directory-unknown');
    expect(readdirSync(example.at('snapshots'))).not.toContain('stray');
    expect(overlite('check').status).toBe(0);
  });

  test('`check` has the exit statuses of fsck for what it cannot do and for wrong usage', async ({
    place,
    together,
  }) => {
    const expected: [status: number, args: string[]][] = [
      [8, ['check', '--max-duration', '0']],
      [8, ['check', '--root', join(place, 'nowhere')]],
      [16, ['check', 'argument']],
      [16, ['check', '--bogus']],
      [16, ['check', '--max-duration', 'soon']],
      [16, ['check', '--dry-run']],
      [0, ['check', '--help']],
    ];
    const ended = await together(...expected.map(([, args]) => args));
    expect(ended.map(({ status, args }) => [status, args])).toEqual(expected);
  });

  test('`check` takes steps, snapshots, --quick and --older-than, and prints JSON', ({
    example,
    overlite,
  }) => {
    writeFileSync(example.at('snapshots', example.ids.app, 'fs', 'added'), '');
    const { status, stdout } = overlite('check', '--json', '--only', 'layers', 'app', '--contents');
    expect(status).toBe(4);
    expect(JSON.parse(stdout)).toMatchObject({
      status: 'damaged',
      findings: [{ code: 'seal-broken', snapshot: 'app', severity: 'error', repair: null }],
    });
    expect(overlite('check', '--quick').status).toBe(0);
    expect(overlite('check', '--older-than', '0').stdout).toContain('info: open-long');
  });

  test('SIGTERM ends `check` at once, with the process that checks for it', async ({ start }) => {
    const { process: check, pid, ended } = start(['check']);
    const checking = await waitFor('a child process of `check`', () =>
      readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').trim(),
    );
    check.kill('SIGTERM');
    expect(await ended()).toMatchObject({ status: 143 });
    await waitFor('the end of the child process', () => !existsSync(`/proc/${checking}`));
  });
});
