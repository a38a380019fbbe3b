import { execFileSync, spawn } from 'node:child_process';
import {
  existsSync,
  mkdirSync,
  readFileSync,
  readdirSync,
  renameSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { OverlayDriver } from '../../src/index.ts';
import { isRoot, mount, unmount } from '../support/mount.ts';
import { assertWhole, makeRoot } from '../support/store.ts';

let store: ReturnType<typeof makeRoot>;
let outside: ReturnType<typeof makeRoot>;
let driver: OverlayDriver;
let undo: (() => void)[];
beforeEach(async () => {
  store = makeRoot();
  outside = makeRoot();
  undo = [];
  driver = await OverlayDriver.open(store.root);
});
afterEach(async () => {
  for (const step of undo.toReversed()) step();
  await driver.close();
  try {
    assertWhole(store.root);
  } finally {
    store.remove();
    outside.remove();
  }
});

function run(command: string, ...args: string[]): string {
  return execFileSync(command, args, { encoding: 'utf8', stdio: 'pipe' });
}

const snapshots = (): string[] => readdirSync(join(store.root, 'snapshots')).toSorted();
const fs = async (key: string): Promise<string> => `${(await driver.stat(key)).directory}/fs`;

describe.skipIf(!isRoot)(`what is in use is not deleted${isRoot ? '' : ' (needs root)'}`, () => {
  const use: Readonly<Record<string, (layer: string) => Promise<() => void> | (() => void)>> = {
    'bound elsewhere': (layer) => {
      run('mount', '--bind', layer, outside.root);
      return () => unmount(outside.root);
    },
    'a mount below it, of the same filesystem': (layer) => {
      mkdirSync(`${layer}/below`);
      writeFileSync(`${outside.root}/precious`, 'x');
      run('mount', '--bind', outside.root, `${layer}/below`);
      return () => unmount(`${layer}/below`);
    },
    'the upper directory of an overlay': (layer) => {
      const lower = join(outside.root, 'lower');
      const target = join(outside.root, 'target');
      for (const path of [lower, target]) mkdirSync(path);
      mount(
        [
          {
            type: 'overlay',
            source: 'overlay',
            options: [`lowerdir=${lower}`, `upperdir=${layer}`, `workdir=${layer}/../work`],
          },
        ],
        target,
      );
      return () => unmount(target);
    },
    'a lower directory of an overlay': (layer) => {
      const target = join(outside.root, 'target');
      for (const path of [join(outside.root, 'other'), target]) mkdirSync(path);
      mount(
        [
          {
            type: 'overlay',
            source: 'overlay',
            options: [`lowerdir=${join(outside.root, 'other')}:${layer}`],
          },
        ],
        target,
      );
      return () => unmount(target);
    },
    'bound in another mount namespace': async (layer) => {
      const script = `mount --bind '${layer}' '${outside.root}' && echo ready && exec sleep 1000`;
      const process = spawn('unshare', ['-m', '--propagation', 'private', 'sh', '-c', script], {
        stdio: ['ignore', 'pipe', 'inherit'],
      });
      await new Promise((resolve) => process.stdout.once('data', resolve));
      return () => {
        process.kill('SIGKILL');
        execFileSync('sh', [
          '-c',
          `while [ -e /proc/${process.pid}/ns/mnt ] && readlink /proc/${process.pid}/ns/mnt >/dev/null 2>&1; do sleep 0.01; done`,
        ]);
      };
    },
  };

  test.each(Object.entries(use))('%s', async (_, start) => {
    await driver.prepare('k');
    const layer = await fs('k');
    writeFileSync(`${layer}/file`, 'x');
    undo.push(await start(layer));
    expect((await driver.remove('k')).deferred).toMatch(/mount|uses it/);
    expect(readFileSync(`${layer}/file`, 'utf8')).toBe('x');
    expect((await driver.cleanup()).deferred).toHaveLength(1);
    expect(await driver.exists('k')).toBe(false);
    undo.pop()?.();
    expect(await driver.cleanup()).toEqual({ removed: 1, deferred: [] });
    expect(snapshots()).toEqual([]);
    expect(await driver.cleanup()).toEqual({ removed: 0, deferred: [] });
  });

  test('what cannot be deleted stays in the journal, and is deleted when it can be', async () => {
    await driver.prepare('k');
    writeFileSync(`${await fs('k')}/file`, 'x');
    const file = `${await fs('k')}/file`;
    run('chattr', '+i', file);
    undo.push(() => existsSync(file) && run('chattr', '-i', file));
    expect((await driver.remove('k')).deferred).toMatch(/EPERM/);
    run('chattr', '-i', file);
    expect((await driver.cleanup()).removed).toBe(1);
  });

  test('overlayfs leaves a directory of mode 000 behind, which goes too', async () => {
    await driver.prepare('k');
    mkdirSync(`${(await driver.stat('k')).directory}/work/work`, { mode: 0 });
    expect(await driver.remove('k')).toEqual({});
    expect(snapshots()).toEqual([]);
  });
});

describe('deletion', () => {
  test('does not follow a symbolic link, in a layer or in place of one', async () => {
    writeFileSync(join(outside.root, 'precious'), 'x');
    await driver.prepare('k');
    symlinkSync(outside.root, `${await fs('k')}/link`);
    await driver.prepare('l');
    renameSync(await fs('l'), `${await fs('l')}-away`);
    symlinkSync(outside.root, await fs('l'));
    expect(await driver.remove('k')).toEqual({});
    expect(await driver.remove('l')).toEqual({});
    expect(snapshots()).toEqual([]);
    expect(readdirSync(outside.root)).toEqual(['precious']);
  });

  test('is of what the journal names and nothing else', async () => {
    mkdirSync(join(store.root, 'snapshots/1000/fs'), { recursive: true });
    await driver.prepare('k');
    await driver.remove('k');
    await driver.cleanup();
    expect(snapshots()).toEqual(['1000']);
    run('rm', '-r', join(store.root, 'snapshots/1000'));
  });

  test('is left to cleanup where that is asked for', async () => {
    await using other = await OverlayDriver.open(store.root, { asyncRemove: true });
    await other.prepare('k');
    await other.prepare('l');
    await other.commit('n', 'l');
    expect(await other.remove('k')).toEqual({});
    expect(snapshots()).toEqual(['1', '2']);
    expect(await driver.cleanup()).toEqual({ removed: 2, deferred: [] });
    expect(snapshots()).toEqual(['2']);
  });

  test('of a thousand directories side by side and of many files', async () => {
    await driver.prepare('k');
    const layer = await fs('k');
    run('sh', '-c', `cd '${layer}' && mkdir $(seq 1000) && touch $(seq -f 'f%g' 2000)`);
    expect((await driver.usage('k')).inodes).toBe(3001);
    expect(await driver.remove('k')).toEqual({});
    expect(snapshots()).toEqual([]);
  });
});

describe('a directory that is in the way of a new id', () => {
  test('is used again if it is the empty skeleton of a crash', async () => {
    for (const part of ['fs', 'work']) mkdirSync(join(store.root, 'snapshots/1', part), { recursive: true });
    await driver.prepare('k');
    expect(existsSync(join(store.root, 'lost+found'))).toBe(false);
  });

  test('is kept in lost+found if it holds anything', async () => {
    mkdirSync(join(store.root, 'snapshots/1/fs'), { recursive: true });
    writeFileSync(join(store.root, 'snapshots/1/fs/precious'), 'x');
    await driver.prepare('k');
    const [kept] = readdirSync(join(store.root, 'lost+found'));
    expect(readFileSync(join(store.root, 'lost+found', kept ?? '', 'fs/precious'), 'utf8')).toBe('x');
    expect(readdirSync(await fs('k'))).toEqual([]);
  });
});
