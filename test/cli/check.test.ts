import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdirSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { describe, expect, test } from 'vitest';
import { commandLine, main } from '../support/cli.ts';
import { useExample } from '../support/damage.ts';
import { isRoot } from '../support/needs.ts';

const needs = isRoot ? '' : ' (needs root)';

const example = useExample();
const { overlite } = commandLine(example);

describe.skipIf(!isRoot)(`overlite check${needs}`, () => {
  test('says that a store is clean', () => {
    const { status, stdout, stderr } = overlite('check');
    expect({ status, stderr }).toEqual({ status: 0, stderr: '' });
    expect(stdout).toContain(`${example.root}: clean`);
    expect(stdout).toMatch(/^layers +done, \d+ checked$/m);
  });

  test('tells what is damaged, what repair would do and what has to be built anew', () => {
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

  test('repairs, and follows the exit statuses of fsck', () => {
    mkdirSync(example.at('snapshots', 'stray'));
    const { status, stdout } = overlite('check', '--repair');
    expect(status).toBe(1);
    expect(stdout).toContain('repaired: directory-unknown');
    expect(readdirSync(example.at('snapshots'))).not.toContain('stray');
    expect(overlite('check').status).toBe(0);
    expect(overlite('check', '--max-duration', '0').status).toBe(8);
    expect(overlite('check', '--root', join(example.parent, 'nowhere')).status).toBe(8);
    expect(overlite('check', 'argument').status).toBe(16);
    expect(overlite('check', '--bogus').status).toBe(16);
    expect(overlite('check', '--max-duration', 'soon').status).toBe(16);
    expect(overlite('check', '--dry-run').status).toBe(16);
    expect(overlite('check', '--help').status).toBe(0);
  });

  test('prints JSON, of a part', () => {
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

  test('ends at once with a signal', async () => {
    const env = { ...process.env, OVERLITE_ROOT: example.root };
    const child = spawn(process.execPath, [main, 'check'], { env, stdio: ['ignore', 'ignore', 'pipe'] });
    const { pid } = child;
    const children = (): string => readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').trim();
    while (children() === '') await sleep(5);
    const checking = children();
    child.kill('SIGTERM');
    expect(await once(child, 'exit')).toEqual([143, null]);
    // The process that checks goes with it.
    while (existsSync(`/proc/${checking}`)) await sleep(5);
  });
});

describe.skipIf(!isRoot)(`overlite backup and restore${needs}`, () => {
  test('bring a lost database back', () => {
    const backup = join(example.parent, 'backup.db');
    expect(overlite('backup', backup)).toMatchObject({ status: 0, stdout: `${backup} is written\n` });
    const again = overlite('backup', backup);
    expect(again.status).toBe(1);
    expect(again.stderr).toContain('ALREADY_EXISTS');
    rmSync(example.at('metadata.db'));
    expect(overlite('check').status).toBe(4);
    const nothing = overlite('restore');
    expect(nothing.status).toBe(1);
    expect(nothing.stderr).toMatch(/FAILED_PRECONDITION: .*there is no backup.*\n {2}hint: /);
    const { status, stdout } = overlite('restore', backup);
    expect(status).toBe(0);
    expect(stdout).toContain(`6 snapshots were restored from ${backup}.`);
    expect(overlite('check').status).toBe(0);
    const salvaged = overlite('restore', '--salvage', '--json');
    expect(JSON.parse(salvaged.stdout)).toMatchObject({ snapshots: 6, from: null, lost: [] });
    expect(overlite('check').status).toBe(0);
    expect(overlite('backup', '--json', join(example.parent, 'b.db')).status).toBe(0);
    expect(overlite('restore', backup, '--salvage').status).toBe(1);
    expect(overlite('restore', 'a', 'b').status).toBe(2);
  });
});
