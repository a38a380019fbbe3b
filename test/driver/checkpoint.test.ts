import { spawn, spawnSync } from 'node:child_process';
import {
  existsSync,
  mkdirSync,
  readFileSync,
  readdirSync,
  renameSync,
  statSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { MetadataStore, OverlayDriver, type Progress } from '../../src/index.ts';
import { makeDisk } from '../support/disk.ts';
import { mount, unmount, withMount } from '../support/mount.ts';
import { isRoot } from '../support/needs.ts';
import { assertWhole, makeRoot, useStore } from '../support/store.ts';
import { describeTree, makeOddTree, missing, sh, treeCommands } from '../support/tree.ts';

const store = useStore();
let driver: OverlayDriver;
beforeEach(async () => {
  driver = await OverlayDriver.open(store.root);
});
afterEach(() => driver.close());

const fs = async (key: string, of = driver): Promise<string> => `${(await of.stat(key)).directory}/fs`;
const snapshots = (): string[] => readdirSync(join(store.root, 'snapshots')).toSorted();

const lacking = [...(isRoot ? [] : ['root']), ...missing(...treeCommands, 'mkfs.xfs', 'mkfs.btrfs')];
const needs = lacking.length === 0 ? '' : ` (needs ${lacking.join(', ')})`;

describe.skipIf(needs !== '')(`a checkpoint is an exact copy${needs}`, () => {
  test.each(['ext4', 'xfs', 'btrfs'] as const)('on %s, of one of everything', async (type) => {
    const disk = makeDisk(type, 512);
    try {
      const own = await OverlayDriver.open(disk.root, { seal: 'content' });
      await own.prepare('k');
      makeOddTree(await fs('k', own));
      const before = describeTree(await fs('k', own));
      const first = await own.checkpoint('one', 'k');
      const second = await own.checkpoint('two', 'k');
      expect(describeTree(await fs('one', own))).toBe(before);
      expect(describeTree(await fs('two', own))).toBe(before);
      expect(describeTree(await fs('k', own))).toBe(before);
      expect(second.seal).toBe(first.seal);
      expect((await own.commit('three', 'k')).seal).toBe(first.seal);
      expect((await own.usage('one')).inodes).toBe((await own.usage('three')).inodes);
      await own.close();
      assertWhole(disk.root);
    } finally {
      disk.remove();
    }
  });

  test.each(['xfs', 'btrfs'] as const)('that shares its blocks on %s', async (type) => {
    const disk = makeDisk(type, 512);
    try {
      const own = await OverlayDriver.open(disk.root);
      await own.prepare('k');
      const file = join(await fs('k', own), 'file');
      sh(`head -c 150M /dev/urandom > '${file}'; sync -f .`, disk.path);
      // Four times as much as the disk would hold.
      for (const name of ['a', 'b', 'c', 'd']) await own.checkpoint(name, 'k');
      writeFileSync(file, 'changed', { flag: 'r+' });
      expect(
        readFileSync(join(await fs('d', own), 'file'))
          .subarray(0, 7)
          .toString(),
      ).not.toBe('changed');
      await own.close();
      assertWhole(disk.root);
    } finally {
      disk.remove();
    }
  });

  test('of what was deleted, replaced and renamed in a mounted overlay, as a later layer shows it', async () => {
    await driver.prepare('base-in-work');
    sh('mkdir -p d/e gone; echo 1 > d/e/f; echo 2 > gone/g; echo 3 > h', await fs('base-in-work'));
    await driver.commit('base', 'base-in-work');
    await driver.prepare('k', 'base');
    await withMount(await driver.mounts('k'), async (tree) => {
      sh('rm -r gone h; rm -r d; mkdir d; echo new > d/x; ln d/x y', tree);
      await driver.checkpoint('one', 'k');
      sh('rm -r d; echo later > z', tree);
      await driver.checkpoint('two', 'k');
      expect(sh('echo still here > w; ls', tree)).toBe('w\ny\nz\n');
    });
    const seen = async (name: string): Promise<string> => {
      let list = '';
      await withMount(await driver.view(`look at ${name}`, name), async (tree) => {
        list = sh('find . -mindepth 1 -printf "%P %n\\n" | sort | xargs', tree);
      });
      await driver.remove(`look at ${name}`);
      return list;
    };
    expect(await seen('one')).toBe('d 2 d/x 2 y 2\n');
    expect(await seen('two')).toBe('y 1 z 1\n');
    expect(await driver.parent('two')).toBe('base');
  });

  test('of hard links below paths that are longer than the kernel takes at once', async () => {
    await driver.prepare('k');
    const name = 'n'.repeat(250);
    sh(
      `for i in $(seq 40); do mkdir ${name}; cd ${name}; done; echo far > first; ln first second`,
      await fs('k'),
    );
    await driver.checkpoint('n', 'k');
    expect(sh(`for i in $(seq 40); do cd ${name}; done; cat second; stat -c %h second`, await fs('n'))).toBe(
      'far\n2\n',
    );
    expect(await driver.remove('k')).toEqual({});
    expect(await driver.delete('n')).toEqual({});
    expect(snapshots()).toEqual([]);
  });

  test('that leaves out what is mounted on a directory of the layer, and has what is below', async () => {
    await driver.prepare('k');
    const layer = await fs('k');
    sh('mkdir d; echo below > d/f; chmod 700 d', layer);
    sh('mount -t tmpfs -o mode=755 tmpfs d; echo above > d/f', layer);
    try {
      await driver.checkpoint('n', 'k');
    } finally {
      unmount(join(layer, 'd'));
    }
    expect(describeTree(await fs('n'))).toBe(describeTree(layer));
  });
});

describe('a checkpoint', () => {
  test('tells how far it is, and can be ended, with nothing left behind', async () => {
    await driver.prepare('k');
    const layer = await fs('k');
    writeFileSync(join(layer, 'large'), Buffer.alloc(64 * 1024 * 1024, 'x'));
    const seen: Progress[] = [];
    await driver.checkpoint('n', 'k', { onProgress: (progress) => seen.push(progress) });
    expect([...new Set(seen.map(({ phase }) => phase))]).toEqual(['copying', 'measuring', 'syncing']);
    const last = seen.at(-1);
    expect(last).toEqual({ phase: 'syncing', inodes: 2, bytes: (await driver.usage('n')).size });
    await driver.delete('n');

    const abort = new AbortController();
    const reason = new Error('enough');
    const onProgress = ({ bytes }: Progress): void => {
      if (bytes > 0) abort.abort(reason);
    };
    await expect(driver.checkpoint('n', 'k', { signal: abort.signal, onProgress })).rejects.toBe(reason);
    expect(snapshots()).toEqual(['1']);
    expect(await driver.cleanup()).toEqual({ removed: 0, deferred: [] });
    expect(await driver.exists('n')).toBe(false);
    await driver.checkpoint('n', 'k');
  });

  test('of a file that gets shorter while it is read fails, with the transaction as it was', async () => {
    await driver.prepare('k');
    const file = join(await fs('k'), 'file');
    writeFileSync(file, Buffer.alloc(64 * 1024 * 1024, 'x'));
    const onProgress = ({ bytes }: Progress): void => {
      // Of the file, and not only of the directory before it.
      if (bytes > 1024 * 1024) truncateSync(file, 1000);
    };
    await expect(driver.checkpoint('n', 'k', { onProgress })).rejects.toMatchObject({
      code: 'FAILED_PRECONDITION',
    });
    expect(snapshots()).toEqual(['1']);
    await driver.checkpoint('n', 'k');
    expect(statSync(join(await fs('n'), 'file')).size).toBe(1000);
  });

  test('of a layer that is gone, or replaced by a symbolic link, is DATA_LOSS', async () => {
    await driver.prepare('k');
    const layer = await fs('k');
    renameSync(layer, `${layer}-away`);
    const code = { code: 'DATA_LOSS' };
    await expect(driver.checkpoint('n', 'k')).rejects.toMatchObject(code);
    await expect(driver.commit('n', 'k')).rejects.toMatchObject(code);
    symlinkSync('/etc', layer);
    await expect(driver.checkpoint('n', 'k')).rejects.toMatchObject(code);
    await expect(driver.commit('n', 'k')).rejects.toMatchObject(code);
    expect(readdirSync(join(store.root, 'snapshots'))).toEqual(['1']);
    expect((await driver.stat('k')).kind).toBe('active');
    await driver.remove('k');
  });

  test('whose key is removed or committed meanwhile fails, with nothing left behind', async () => {
    const metadata = await MetadataStore.open(join(store.root, 'metadata.db'));
    const ends = [(): unknown => metadata.remove('k'), (): unknown => metadata.commit('c', 'k')];
    for (const end of ends) {
      await driver.prepare('k');
      const onProgress = ({ phase, inodes }: Progress): void => {
        if (phase === 'measuring' && inodes === 0) end();
      };
      await expect(driver.checkpoint('n', 'k', { onProgress })).rejects.toMatchObject({ code: 'NOT_FOUND' });
    }
    metadata.close();
    await driver.cleanup();
    expect(snapshots()).toHaveLength(1);
    await driver.delete('c');
  });

  test('that is under way when the driver is closed is finished first', async () => {
    await driver.prepare('k');
    let closing: Promise<void> | undefined;
    const onProgress = (): void => void (closing ??= driver.close());
    const info = await driver.checkpoint('n', 'k', { onProgress });
    await closing;
    driver = await OverlayDriver.open(store.root);
    expect(await driver.stat('n')).toEqual(info);
  });
});

describe('the reservation of a copy', () => {
  const script = fileURLToPath(new URL('../support/hold-checkpoint.mjs', import.meta.url));

  /** Starts a process that stops in the middle of a checkpoint, until it is told to go on or is killed. */
  async function hold(root: string): Promise<{ kill: () => Promise<void>; finish: () => Promise<string> }> {
    const child = spawn(process.execPath, [script, root], { stdio: ['pipe', 'pipe', 'inherit'] });
    const ended = new Promise<void>((resolve) => child.once('exit', () => resolve()));
    let out = '';
    child.stdout.setEncoding('utf8');
    child.stdout.on('data', (text: string) => (out += text));
    while (!out.includes('holding')) await new Promise((resolve) => child.stdout.once('data', resolve));
    return {
      async kill() {
        child.kill('SIGKILL');
        await ended;
      },
      async finish() {
        child.stdin.end('go\n');
        await ended;
        return out;
      },
    };
  }

  test('that is alive in another process is not taken by cleanup, and becomes the snapshot', async () => {
    await driver.prepare('k');
    writeFileSync(join(await fs('k'), 'file'), 'x');
    const other = await hold(store.root);
    expect(snapshots()).toEqual(['1', '2']);
    expect(await driver.cleanup()).toEqual({ removed: 0, deferred: [] });
    await using third = await OverlayDriver.open(store.root);
    expect(await third.cleanup()).toEqual({ removed: 0, deferred: [] });
    expect(snapshots()).toEqual(['1', '2']);
    expect(await other.finish()).toMatch(/done/);
    expect(readFileSync(join(await fs('n'), 'file'), 'utf8')).toBe('x');
  });

  test('that is alive in this process is not taken either', async () => {
    await driver.prepare('k');
    let cleaning: Promise<unknown> | undefined;
    const onProgress = ({ phase }: Progress): void => {
      if (phase === 'measuring') cleaning ??= driver.cleanup();
    };
    await driver.checkpoint('n', 'k', { onProgress });
    expect(await cleaning).toEqual({ removed: 0, deferred: [] });
    expect(existsSync(await fs('n'))).toBe(true);
  });

  test('of a process that was killed is found by cleanup', async () => {
    await driver.prepare('k');
    writeFileSync(join(await fs('k'), 'file'), 'x');
    await (await hold(store.root)).kill();
    expect(snapshots()).toEqual(['1', '2']);
    expect(await driver.cleanup()).toEqual({ removed: 1, deferred: [] });
    expect(snapshots()).toEqual(['1']);
    expect(await driver.exists('n')).toBe(false);
    await driver.checkpoint('n', 'k');
    expect((await driver.stat('n')).id).toBe(3);
  });

  test('of a process that was killed is found after an open, without being asked for', async () => {
    await driver.prepare('k');
    await driver.prepare('removed');
    await (await hold(store.root)).kill();
    await using lazy = await OverlayDriver.open(store.root, { asyncRemove: true });
    await lazy.remove('removed');
    expect(snapshots()).toEqual(['1', '2', '3']);
    await using next = await OverlayDriver.open(store.root);
    while (snapshots().length > 1) await new Promise((resolve) => setImmediate(resolve));
    expect(await next.exists('k')).toBe(true);
  });

  test('whose directory never became durable is forgotten', async () => {
    await driver.prepare('k');
    await (await hold(store.root)).kill();
    sh('rm -r snapshots/2', store.root);
    expect(await driver.cleanup()).toEqual({ removed: 1, deferred: [] });
  });

  test('whose directory someone replaced by something else is left, and reported', async () => {
    await driver.prepare('k');
    await (await hold(store.root)).kill();
    const outside = makeRoot();
    try {
      mkdirSync(join(outside.root, 'fs'));
      renameSync(join(store.root, 'snapshots/2'), join(outside.root, 'away'));
      symlinkSync(outside.root, join(store.root, 'snapshots/2'));
      const { removed, deferred } = await driver.cleanup();
      expect(removed).toBe(0);
      expect(deferred).toMatchObject([{ path: join(store.root, 'snapshots/2') }]);
      expect(readdirSync(outside.root).toSorted()).toEqual(['away', 'fs']);
    } finally {
      sh('rm -f snapshots/2', store.root);
      outside.remove();
    }
    expect((await driver.cleanup()).removed).toBe(1);
  });
});

test.skipIf(!isRoot)(`a mount stays valid over checkpoints${isRoot ? '' : ' (needs root)'}`, async () => {
  await driver.prepare('k');
  const target = join(store.root, 'target');
  mkdirSync(target);
  mount(await driver.mounts('k'), target);
  try {
    for (const name of ['a', 'b', 'c']) {
      writeFileSync(join(target, name), name);
      await driver.checkpoint(`with ${name}`, 'k');
    }
    expect(readdirSync(await fs('with b'))).toEqual(['a', 'b']);
    expect(readdirSync(target)).toEqual(['a', 'b', 'c']);
  } finally {
    unmount(target);
  }
});

test.skipIf(!isRoot)(
  `a checkpoint in a user namespace keeps what the overlay stands for${isRoot ? '' : ' (needs root)'}`,
  () => {
    const script = fileURLToPath(new URL('../support/rootless-checkpoint.mjs', import.meta.url));
    const { root, remove } = makeRoot();
    try {
      sh('chown 65534:65534 .', root);
      const ids = ['--reuid=65534', '--regid=65534', '--clear-groups'];
      const { stdout, stderr } = spawnSync(
        'setpriv',
        [...ids, 'unshare', '-Urm', process.execPath, script, root],
        {
          encoding: 'utf8',
        },
      );
      expect(stderr).toBe('');
      expect(JSON.parse(stdout)).toEqual({ inUse: true, same: true, deferred: [], seen: ['./d', './d/new'] });
    } finally {
      remove();
    }
  },
);
