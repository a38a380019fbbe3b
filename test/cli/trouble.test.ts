import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { describe, expect, test } from 'vitest';
import { OverlayDriver } from '../../src/index.ts';
import { commandLine, main } from '../support/cli.ts';
import { useExample } from '../support/damage.ts';
import { makeDisk } from '../support/disk.ts';
import { isRoot } from '../support/needs.ts';
import { queryShell } from '../support/shell.ts';
import { assertWhole } from '../support/store.ts';
import { missing, sh } from '../support/tree.ts';

const lacking = isRoot ? missing('sqlite3', 'setpriv', 'mkfs.ext4', 'script') : ['root'];
const needs = lacking.length === 0 ? '' : ` (needs ${lacking.join(', ')})`;

const example = useExample();
const { overlite, printed, json, inTerminal } = commandLine(example);

const ask = (sql: string): unknown[] => queryShell(join(example.root, 'metadata.db'), sql);
const rows = (): unknown => ask('select id, name, kind, parent_id from snapshot order by id');

/** Runs a command, and sends it a signal once something is so. */
async function stopOnce(isSo: () => boolean, signal: NodeJS.Signals, ...args: string[]): Promise<unknown> {
  const child = spawn(process.execPath, [main, ...args], {
    env: { ...process.env, OVERLITE_ROOT: example.root },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  let stderr = '';
  child.stderr.on('data', (data: Buffer) => (stderr += data.toString()));
  const closed = once(child, 'close');
  while (child.exitCode === null && !isSo()) await sleep(5);
  child.kill(signal);
  const [status] = (await closed) as [number | null];
  return { status, stderr };
}

describe.skipIf(lacking.length > 0)(`a command in trouble${needs}`, () => {
  test('that is stopped undoes what it has begun', async () => {
    sh('seq 20000 | xargs touch', example.at('snapshots', example.ids.work, 'fs'));
    const before = rows();
    const reserved = (): boolean => ask(`select id from removal where state = 'reserved'`).length > 0;
    for (const [signal, status] of [
      ['SIGINT', 130],
      ['SIGTERM', 143],
      ['SIGHUP', 129],
    ] as const) {
      expect(await stopOnce(reserved, signal, 'checkpoint', 'captured', 'work')).toEqual({
        status,
        stderr: `overlite: stopped by ${signal}\n`,
      });
      expect(rows()).toEqual(before);
    }
    printed('cleanup');
    assertWhole(example.root);
    expect(readdirSync(example.at('snapshots'))).toHaveLength(5);
    expect(printed('checkpoint', 'captured', 'work')).toMatch(/^captured is committed: 20002 inodes/);
  });

  test('that deletes and is stopped goes on the next time', async () => {
    const driver = await OverlayDriver.open(example.root, { asyncRemove: true, backups: false });
    for (let n = 1; n <= 24; n += 1) {
      await driver.prepare(`k${n}`);
      sh('seq 600 | xargs touch', `${(await driver.stat(`k${n}`)).directory}/fs`);
      await driver.remove(`k${n}`);
    }
    await driver.close();
    const directories = (): number => readdirSync(example.at('snapshots')).length;
    const all = directories();
    const stopped = await stopOnce(() => directories() < all, 'SIGINT', 'cleanup');
    expect(stopped).toEqual({ status: 130, stderr: 'overlite: stopped by SIGINT\n' });
    expect(directories()).toBeGreaterThan(5);
    printed('cleanup');
    expect(ask('select id from removal')).toEqual([]);
    expect(readdirSync(example.at('snapshots'))).toHaveLength(5);
    assertWhole(example.root);
  });

  test('shows how far it is on a terminal, and is quiet elsewhere', async () => {
    const driver = await OverlayDriver.open(example.root, { asyncRemove: true, backups: false });
    for (let n = 1; n <= 3; n += 1) {
      await driver.prepare(`k${n}`);
      await driver.remove(`k${n}`);
    }
    await driver.close();
    expect(inTerminal('cleanup')).toMatch(/deleting .*[━─]{5}.* of 3[^]*3 removed, 0 still in use\n$/);
    const file = join(example.parent, 'backup.db');
    expect(inTerminal(`backup ${file}`)).toMatch(
      /copying .*[━─]{5}.* of [\d.]+ KiB[^]*backup\.db is written\n$/,
    );
    expect(json('backup', `${file}-2`)).toEqual({ file: `${file}-2` });
    expect(readdirSync(example.parent).toSorted()).toEqual(['backup.db', 'backup.db-2', 'store']);
  });

  test('waits for whoever else writes, as long as it may', async () => {
    const before = rows();
    const shell = spawn('sqlite3', [join(example.root, 'metadata.db')], {
      stdio: ['pipe', 'pipe', 'inherit'],
    });
    shell.stdin.write("begin immediate; select 'locked';\n");
    await once(shell.stdout, 'data');
    const { status, stderr } = overlite('prepare', 'late', 'app', '--busy-timeout', '0.2');
    expect({ status, stderr }).toEqual({
      status: 1,
      stderr: expect.stringMatching(/^overlite: UNAVAILABLE: /),
    });
    // Those that only look do not wait.
    expect(printed('list')).toContain('base');
    expect(printed('check')).toContain(': clean');
    const patient = spawn(process.execPath, [main, 'prepare', 'late', 'app', '--root', example.root]);
    expect(rows()).toEqual(before);
    shell.stdin.end('rollback;\n');
    expect(await once(patient, 'close')).toEqual([0, null]);
    expect(json('info', 'late')).toMatchObject({ kind: 'active', parent: 'app' });
  });

  test.each(['tmpfs', 'ext4'] as const)('says that %s is full, and leaves nothing half made', (type) => {
    const disk = makeDisk(type, type === 'tmpfs' ? 4 : 24);
    try {
      printed('prepare', 'k', '--root', disk.root);
      sh('head -c 300000 /dev/urandom > file', join(disk.root, 'snapshots/1/fs'));
      sh('for i in 1 2; do cat /dev/zero >> filler 2> /dev/null || true; sync -f .; done', disk.path);
      const before = printed('list', '--root', disk.root, '--json');
      for (const args of [
        // More than the reserve holds.
        [
          'prepare',
          'l',
          ...Array.from({ length: 40 }, (_, n) => ['--label', `${n}=${'x'.repeat(4000)}`]).flat(),
        ],
        ['checkpoint', 'n', 'k'],
      ]) {
        const { status, stderr } = overlite(...args, '--root', disk.root);
        expect({ args, status, stderr }).toEqual({
          args,
          status: 1,
          stderr: expect.stringMatching(/^overlite: RESOURCE_EXHAUSTED: /),
        });
      }
      expect(printed('list', '--root', disk.root, '--json')).toBe(before);
      // Taking away is what helps, and works.
      expect(printed('remove', 'k', '--root', disk.root)).toBe('k is removed\n');
      assertWhole(disk.root);
    } finally {
      disk.remove();
    }
  });

  test('says what it may not do', () => {
    sh(`chmod 755 ${example.parent}; mkdir -m 777 ${example.parent}/target`, '/');
    const asNobody = (...args: string[]): unknown => {
      const as = ['--reuid=1234', '--regid=1234', '--clear-groups', process.execPath, main];
      const { status, stderr } = spawnSync('setpriv', [...as, ...args], {
        encoding: 'utf8',
        env: { ...process.env, OVERLITE_ROOT: example.root },
      });
      return { status, stderr };
    };
    const denied = (status: number): object => ({
      status,
      stderr: expect.stringMatching(/^overlite: PERMISSION_DENIED: .*\n(?: {2}hint: .*\n)?$/),
    });
    for (const args of [['list'], ['prepare', 'k'], ['remove', 'work']])
      expect(asNobody(...args)).toEqual(denied(1));
    expect(asNobody('check')).toMatchObject({ status: 8 });
    sh(`chown -R 1234:1234 ${example.root}`, '/');
    expect(asNobody('list')).toEqual({ status: 0, stderr: '' });
    expect(asNobody('mount', 'work', join(example.parent, 'target'))).toEqual(denied(1));
    expect(asNobody('diff', 'work')).toEqual(denied(1));
    sh(`chown -R 0:0 ${example.root}`, '/');
  });
});
