import { execFileSync, spawn, spawnSync } from 'node:child_process';
import {
  appendFileSync,
  closeSync,
  existsSync,
  mkdirSync,
  openSync,
  readFileSync,
  truncateSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { dirname, join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { type CommitOptions, OverlayDriver, type Progress } from '../../src/index.ts';
import { isUpperInUse } from '../../src/linux/probe.ts';
import { makeDisk } from '../support/disk.ts';
import { mount, unmount, withMount } from '../support/mount.ts';
import { isRoot } from '../support/needs.ts';
import { makeRoot, useStore } from '../support/store.ts';
import { describeTree, missing, sh } from '../support/tree.ts';

const store = useStore();
let driver: OverlayDriver;
let target: string;
let undo: (() => void | Promise<void>)[];
beforeEach(async () => {
  driver = await OverlayDriver.open(store.root);
  target = join(store.root, 'target');
  mkdirSync(target);
  undo = [];
});
afterEach(async () => {
  for (const step of undo.toReversed()) await step();
  await driver.close();
});

const fs = async (key: string): Promise<string> => `${(await driver.stat(key)).directory}/fs`;

async function makeBase(): Promise<void> {
  await driver.prepare('base-in-work');
  sh('echo base > file; mkdir d; echo x > d/x', await fs('base-in-work'));
  await driver.commit('base', 'base-in-work');
}

describe.skipIf(!isRoot)(`a commit of a layer that is mounted${isRoot ? '' : ' (needs root)'}`, () => {
  /** Ways to have a layer mounted to write to it: each gives a file to write and says how it is undone. */
  const uses: Readonly<
    Record<
      string,
      {
        parent: string | null;
        use: () => Promise<{ write: (text: string) => void; end: () => void | Promise<void> }>;
      }
    >
  > = {
    'as an overlay': {
      parent: 'base',
      async use() {
        mount(await driver.mounts('k'), target);
        return { write: (text) => appendFileSync(join(target, 'log'), text), end: () => unmount(target) };
      },
    },
    'as an overlay that was detached, through a file that is still open': {
      parent: 'base',
      async use() {
        mount(await driver.mounts('k'), target);
        const fd = openSync(join(target, 'log'), 'a');
        execFileSync('umount', ['-l', target]);
        return { write: (text) => void writeSync(fd, text), end: () => closeSync(fd) };
      },
    },
    'as an overlay in another mount namespace': {
      parent: 'base',
      async use() {
        const [overlay] = await driver.mounts('k');
        const script = `mount -t overlay overlay '${target}' -o '${overlay?.options.join(',')}' && echo ready && while read line; do echo "$line" >> '${target}/log'; echo ok; done`;
        const child = spawn('unshare', ['-m', 'sh', '-c', script], { stdio: ['pipe', 'pipe', 'inherit'] });
        await new Promise((resolve) => child.stdout.once('data', resolve));
        const log = join(await fs('k'), 'log');
        return {
          write(text) {
            const before = existsSync(log) ? readFileSync(log).length : 0;
            child.stdin.write(`${text.trim()}\n`);
            while (!existsSync(log) || readFileSync(log).length === before) spawnSync('sleep', ['0.01']);
          },
          async end() {
            child.kill('SIGKILL');
            // Its mount namespace goes a while after it.
            while ((await isUpperInUse(dirname(log))) === true) await sleep(10);
          },
        };
      },
    },
    'as a bind of its own': {
      parent: null,
      async use() {
        mount(await driver.mounts('k'), target);
        return { write: (text) => appendFileSync(join(target, 'log'), text), end: () => unmount(target) };
      },
    },
  };

  describe.each(Object.entries(uses))('%s', (_, { parent, use }) => {
    let writer: Awaited<ReturnType<typeof use>>;
    beforeEach(async () => {
      await makeBase();
      await driver.prepare('k', parent);
      const started = await use();
      const end = started.end.bind(started);
      undo.push(end);
      writer = started;
      writer.write('before\n');
    });

    test('is allowed unless told otherwise, and says so', async () => {
      const info = await driver.commit('n', 'k');
      expect(info.inUse).toBe(true);
      expect((await driver.stat('n')).inUse).toBe(true);
      // That is what it warns of.
      writer.write('after\n');
      expect(readFileSync(join(await fs('n'), 'log'), 'utf8')).toBe('before\nafter\n');
      if (parent !== null) expect((await driver.cleanup()).deferred).toHaveLength(1);
      await undo.pop()?.();
      expect((await driver.cleanup()).deferred).toEqual([]);
      expect(existsSync(join(info.directory ?? '', 'work'))).toBe(false);
    });

    test('is refused if that is asked for, and changes nothing', async () => {
      await expect(driver.commit('n', 'k', { inUse: 'refuse' })).rejects.toMatchObject({
        code: 'FAILED_PRECONDITION',
      });
      expect(await driver.exists('n')).toBe(false);
      writer.write('after\n');
      await undo.pop()?.();
      expect((await driver.commit('n', 'k', { inUse: 'refuse' })).inUse).toBe(false);
      expect(readFileSync(join(await fs('n'), 'log'), 'utf8')).toBe('before\nafter\n');
    });

    test('is of a copy if that is asked for, which nothing written later reaches', async () => {
      const left = (await driver.stat('k')).directory ?? '';
      const info = await driver.commit('n', 'k', { inUse: 'copy', labels: { a: 'b' } });
      expect(info).toMatchObject({ inUse: false, parent, kind: 'committed', labels: { a: 'b' } });
      expect(await driver.exists('k')).toBe(false);
      const sealed = describeTree(await fs('n'));
      writer.write('after\n');
      expect(describeTree(await fs('n'))).toBe(sealed);
      expect(readFileSync(join(await fs('n'), 'log'), 'utf8')).toBe('before\n');
      expect((await driver.cleanup()).deferred).toMatchObject([{ path: left }]);
      await undo.pop()?.();
      expect(await driver.cleanup()).toEqual({ removed: 1, deferred: [] });
      expect(existsSync(left)).toBe(false);
    });

    test('is not removed below it either', async () => {
      const left = (await driver.stat('k')).directory ?? '';
      expect((await driver.remove('k')).deferred).toMatch(/mount|uses it/);
      writer.write('after\n');
      expect(readFileSync(`${left}/fs/log`, 'utf8')).toBe('before\nafter\n');
      await undo.pop()?.();
      expect((await driver.cleanup()).deferred).toEqual([]);
      expect(existsSync(left)).toBe(false);
    });
  });

  test('of a copy, while a process writes without end, has every file as it was at some moment', async () => {
    await makeBase();
    await driver.prepare('k', 'base');
    mount(await driver.mounts('k'), target);
    undo.push(() => unmount(target));
    const writer = fileURLToPath(new URL('../support/keep-writing.mjs', import.meta.url));
    const child = spawn(process.execPath, [writer, target], { stdio: ['ignore', 'pipe', 'inherit'] });
    const ended = new Promise((resolve) => child.once('exit', resolve));
    await new Promise((resolve) => child.stdout.once('data', resolve));
    try {
      for (let i = 0; i < 5; i += 1) await driver.checkpoint(`c${i}`, 'k');
      await driver.commit('n', 'k', { inUse: 'copy' });
    } finally {
      child.kill('SIGKILL');
      await ended;
    }
    for (const name of ['c0', 'c1', 'c2', 'c3', 'c4', 'n']) {
      const layer = await fs(name);
      // Replaced as a whole each time, so whole in every copy; the log has nothing but whole lines and its end.
      expect(readFileSync(join(layer, 'replaced'), 'utf8')).toMatch(/^(\d+ )\1*$/);
      expect(readFileSync(join(layer, 'log'), 'utf8')).toMatch(/^(line \d+\n)+(l?i?n?e? ?\d*)$/);
    }
    expect((await driver.stat('n')).inUse).toBe(false);
  });
});

describe('a commit', () => {
  test('of a layer that changes after it was measured says that it was in use', async () => {
    await driver.prepare('k');
    const file = join(await fs('k'), 'file');
    writeFileSync(file, 'before');
    const onProgress = ({ phase }: Progress): void => {
      if (phase === 'syncing') writeFileSync(file, 'behind its back');
    };
    await expect(driver.commit('n', 'k', { inUse: 'refuse', onProgress })).rejects.toMatchObject({
      code: 'FAILED_PRECONDITION',
    });
    expect((await driver.commit('n', 'k', { onProgress })).inUse).toBe(true);
    await driver.prepare('k');
    expect((await driver.commit('m', 'k', { inUse: 'refuse' })).inUse).toBe(false);
  });

  describe.skipIf(!isRoot)(`of a layer on others${isRoot ? '' : ' (needs root)'}`, () => {
    beforeEach(async () => {
      await makeBase();
      await driver.prepare('k', 'base');
    });

    /** Commits, and does something once the layer has been measured. */
    async function commitWith(then: () => void, options: CommitOptions = {}): Promise<boolean | null> {
      const onProgress = ({ phase }: Progress): void => {
        if (phase === 'syncing') then();
      };
      return (await driver.commit('n', 'k', { onProgress, ...options })).inUse;
    }

    test('that is mounted only while it is measured says that it was in use', async () => {
      const mounts = await driver.mounts('k');
      const use = (): void => {
        mount(mounts, target);
        appendFileSync(join(target, 'file'), 'in passing');
        unmount(target);
      };
      await expect(commitWith(use, { inUse: 'refuse' })).rejects.toMatchObject({
        code: 'FAILED_PRECONDITION',
      });
      // And again, after it has been mounted before.
      expect(await commitWith(use)).toBe(true);
    });

    test('that is unmounted while it is measured says that it was in use', async () => {
      mount(await driver.mounts('k'), target);
      expect(await commitWith(() => unmount(target))).toBe(true);
    });

    test('that was mounted before says that it was not', async () => {
      mount(await driver.mounts('k'), target);
      writeFileSync(join(target, 'file'), 'written');
      unmount(target);
      expect(await commitWith(() => {}, { inUse: 'refuse' })).toBe(false);
    });
  });

  test('may be told to copy only outside a transaction', async () => {
    await driver.prepare('k');
    const seal = await driver.seal('k');
    await expect(
      driver.transaction((tx) => tx.commit('n', 'k', { seal, inUse: 'copy' as 'allow' })),
    ).rejects.toMatchObject({ code: 'INVALID_ARGUMENT' });
    await expect(driver.commit('n', 'k', { inUse: 'whatever' as 'allow' })).rejects.toMatchObject({
      code: 'INVALID_ARGUMENT',
    });
  });

  test('whose contents are sealed fails when a file gets shorter while it is read', async () => {
    await using own = await OverlayDriver.open(store.root, { seal: 'content' });
    await own.prepare('k');
    const file = join(await fs('k'), 'file');
    writeFileSync(file, Buffer.alloc(8 * 1024 * 1024, 'x'));
    const onProgress = ({ bytes }: Progress): void => {
      if (bytes > 0) truncateSync(file, 1000);
    };
    await expect(own.commit('n', 'k', { onProgress })).rejects.toMatchObject({ code: 'FAILED_PRECONDITION' });
    expect((await own.stat('k')).kind).toBe('active');
    await own.commit('n', 'k');
  });

  test('that is under way when the driver is closed is finished first', async () => {
    await driver.prepare('k');
    let closing: Promise<void> | undefined;
    const onProgress = (): void => void (closing ??= driver.close());
    const info = await driver.commit('n', 'k', { onProgress });
    await closing;
    driver = await OverlayDriver.open(store.root);
    expect(await driver.stat('n')).toEqual(info);
  });

  test.skipIf(!isRoot)(
    `by one who may not read the layer is PERMISSION_DENIED${isRoot ? '' : ' (needs root)'}`,
    () => {
      const script = fileURLToPath(new URL('../support/commit-unreadable.mjs', import.meta.url));
      const { root, remove } = makeRoot();
      try {
        execFileSync('chown', ['65534:65534', root]);
        const { stdout } = spawnSync(process.execPath, [script, root], {
          uid: 65534,
          gid: 65534,
          encoding: 'utf8',
        });
        const refused = { code: 'PERMISSION_DENIED', kind: 'active' };
        expect(JSON.parse(stdout)).toEqual({ directory: refused, file: refused, afterwards: 'committed' });
      } finally {
        remove();
      }
    },
  );
});

const withoutStrace = missing('strace').length > 0 ? ' (needs strace)' : '';
describe.skipIf(withoutStrace !== '')(`what a commit syncs${withoutStrace}`, () => {
  const script = fileURLToPath(new URL('../support/commit-many.mjs', import.meta.url));

  /** Traces a process that commits layers; gives the calls, and what it printed. */
  function trace(
    args: readonly string[],
    { inject = [], root = store.root }: { inject?: readonly string[]; root?: string } = {},
  ): { calls: string[]; out: string } {
    const log = join(store.root, 'trace');
    const options = ['-f', '-y', '-qq', '-o', log, '-e', 'trace=fsync,syncfs,write', ...inject];
    const { stdout } = spawnSync('strace', [...options, process.execPath, script, root, ...args], {
      encoding: 'utf8',
      // strace counts the calls of each thread by itself.
      env: { ...process.env, UV_THREADPOOL_SIZE: '1' },
    });
    return { calls: readFileSync(log, 'utf8').split('\n'), out: stdout };
  }
  /** Which calls were made between two things that the process wrote. */
  const between = (calls: string[], from: string, to: string): string[] => {
    const of = (text: string): number => calls.findIndex((call) => call.includes(`"${text}\\n"`));
    return calls.slice(of(from), of(to));
  };
  const count = (calls: string[], pattern: RegExp): number =>
    calls.filter((call) => pattern.test(call)).length;

  test('is the layer, and only then the row', () => {
    const { calls } = trace(['1', 'full']);
    const made = between(calls, 'sealing', 'sealed');
    expect(count(made, /syncfs\(/)).toBe(1);
    expect(count(made, /fsync\(.*metadata\.db/)).toBe(0);
    expect(count(between(calls, 'sealed', 'committed'), /fsync\(.*metadata\.db-wal/)).toBeGreaterThan(0);
  });

  test('is shared by those that wait at the same moment', () => {
    const { calls } = trace(['32', 'full']);
    const syncs = count(between(calls, 'committing', 'done'), /syncfs\(/);
    expect(syncs).toBeGreaterThan(0);
    expect(syncs).toBeLessThan(8);
  });

  test.skipIf(!isRoot)(
    `is each file of a small layer by itself, where much else waits to be written${isRoot ? '' : ' (needs root)'}`,
    () => {
      // On a disk of its own, where no other test syncs; but the kernel may have written it all before the commit.
      for (let attempt = 1; ; attempt += 1) {
        const disk = makeDisk('ext4', 320);
        try {
          const { calls } = trace(['1', 'full', 'dirty'], { root: disk.root });
          const made = between(calls, 'sealing', 'sealed');
          if (attempt < 10 && count(made, /syncfs\(/) > 0) continue;
          expect(count(made, /syncfs\(/)).toBe(0);
          // A path in a clone of the mount begins at the layer.
          expect(count(made, /fsync\(\d+<(\/|.*\/fs)>/)).toBe(1);
          expect(count(made, /fsync\(\d+<(|.*\/fs)\/file>/)).toBe(1);
          return;
        } finally {
          disk.remove();
        }
      }
    },
  );

  test('is nothing where the user opted out', () => {
    const { calls } = trace(['4', 'metadata']);
    expect(count(calls, /syncfs\(/)).toBe(0);
  });

  test('that fails is the error of every commit that waited, and of every later one of a layer that was there', () => {
    const { out } = trace(['4', 'full', 'again'], { inject: ['-e', 'inject=syncfs:error=EIO:when=1'] });
    const lines = out.trim().split('\n');
    expect(lines.filter((line) => line.startsWith('code'))).toEqual([
      ...Array.from({ length: 4 }, () => 'code DATA_LOSS'),
      ...Array.from({ length: 4 }, () => 'code DATA_LOSS'),
      'code of a new one OK',
    ]);
    expect(lines).toContain('active 4');
  });
});

test.skipIf(!isRoot)(
  `a commit while mounted goes on being seen through the mount${isRoot ? '' : ' (needs root)'}`,
  async () => {
    await makeBase();
    await driver.prepare('k', 'base');
    await withMount(await driver.mounts('k'), async (tree) => {
      sh('echo changed > file; rm -r d', tree);
      await driver.commit('n', 'k');
      expect(sh('cat file; ls', tree)).toBe('changed\nfile\n');
      await driver.prepare('next', 'n');
      const second = join(store.root, 'second');
      mkdirSync(second);
      mount(await driver.mounts('next'), second);
      expect(sh('cat file; ls', second)).toBe('changed\nfile\n');
      unmount(second);
    });
  },
);
