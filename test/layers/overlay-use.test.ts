import { execFileSync } from 'node:child_process';
import {
  appendFileSync,
  closeSync,
  existsSync,
  openSync,
  readFileSync,
  readdirSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { join } from 'node:path';
import { describe, expect } from 'vitest';
import type { CommitOptions, OverlayDriver, Progress } from '../../src/index.ts';
import { isUpperInUse } from '../../src/linux/probe.ts';
import { test } from '../support/fixtures.ts';
import { commitLayer, layerOf } from '../support/layers.ts';
import { mount, unmount } from '../support/mount.ts';
import { needs } from '../support/needs.ts';
import { type StartedProcess, startProcess } from '../support/process.ts';
import { describeTree } from '../support/tree.ts';
import { waitFor } from '../support/wait-for.ts';

const lacking = needs('root');

/** Something that has the layer of "k" mounted, and appends to `log` in it. */
interface Writer {
  readonly write: (text: string) => unknown;
  readonly end: () => unknown;
}

/** A way to have a layer mounted to write to it. */
interface Way {
  readonly parent: string | null;
  readonly start: (driver: OverlayDriver, target: string) => Promise<Writer>;
}

async function startMounted(driver: OverlayDriver, target: string): Promise<Writer> {
  mount(await driver.mounts('k'), target);
  return { write: (text) => appendFileSync(join(target, 'log'), text), end: () => unmount(target) };
}

const ways: Readonly<Record<string, Way>> = {
  'as an overlay': { parent: 'base', start: startMounted },
  'as a detached overlay with an open file': {
    parent: 'base',
    async start(driver, target) {
      mount(await driver.mounts('k'), target);
      const fd = openSync(join(target, 'log'), 'a');
      execFileSync('umount', ['-l', target]);
      return { write: (text) => writeSync(fd, text), end: () => closeSync(fd) };
    },
  },
  'as an overlay in another mount namespace': {
    parent: 'base',
    async start(driver, target) {
      const [overlay] = await driver.mounts('k');
      const layer = await layerOf(driver, 'k');
      const script = `
        mount -t overlay overlay '${target}' -o '${overlay?.options.join(',')}' && echo ready &&
          while read line; do echo "$line" >> '${target}/log'; echo written; done`;
      const writer = await startProcess('ready', 'unshare', ['-m', 'sh', '-c', script]);
      const written = (): number => writer.printed.split('written').length - 1;
      return {
        async write(text) {
          const before = written();
          writer.write(text);
          await waitFor('the line to be written', () => written() > before);
        },
        async end() {
          await writer.kill();
          // Its mount namespace goes a while after it.
          await waitFor('its overlay to go', async () => (await isUpperInUse(layer)) !== true);
        },
      };
    },
  },
  'as a bind': { parent: null, start: startMounted },
};

describe.skipIf(lacking)(`a layer that is mounted${lacking}`, () => {
  describe.for(Object.entries(ways))('%s', ([how, { parent, start }]) => {
    const withWriter = test.extend<{ writer: Writer }>({
      writer: async ({ driver, target }, use) => {
        await commitLayer(driver, 'base');
        await driver.prepare('k', parent);
        const { write, end } = await start(driver, target);
        await write('before\n');
        let ended: unknown;
        const endOnce = (): unknown => (ended ??= Promise.resolve(end()));
        await use({ write, end: endOnce });
        await endOnce();
      },
    });

    withWriter(
      `commit() of a layer that is mounted ${how} is allowed by default, and tells that it was in use`,
      async ({ driver, writer }) => {
        const info = await driver.commit('n', 'k');
        expect(info.inUse).toBe(true);
        expect((await driver.stat('n')).inUse).toBe(true);
        // That is what it warns of.
        await writer.write('after\n');
        expect(readFileSync(join(await layerOf(driver, 'n'), 'log'), 'utf8')).toBe('before\nafter\n');
        if (parent !== null) expect((await driver.cleanup()).deferred).toHaveLength(1);
        await writer.end();
        expect((await driver.cleanup()).deferred).toEqual([]);
        expect(existsSync(join(info.directory ?? '', 'work'))).toBe(false);
      },
    );

    withWriter(
      `commit() with inUse: "refuse" refuses a layer that is mounted ${how}, and changes nothing`,
      async ({ driver, writer }) => {
        await expect(driver.commit('n', 'k', { inUse: 'refuse' })).rejects.toMatchObject({
          code: 'FAILED_PRECONDITION',
        });
        expect(await driver.exists('n')).toBe(false);
        await writer.write('after\n');
        await writer.end();
        expect((await driver.commit('n', 'k', { inUse: 'refuse' })).inUse).toBe(false);
        expect(readFileSync(join(await layerOf(driver, 'n'), 'log'), 'utf8')).toBe('before\nafter\n');
      },
    );

    withWriter(
      `commit() with inUse: "copy" of a layer that is mounted ${how} commits a copy that later writes do not reach`,
      async ({ driver, writer }) => {
        const left = (await driver.stat('k')).directory ?? '';
        const info = await driver.commit('n', 'k', { inUse: 'copy', labels: { a: 'b' } });
        expect(info).toMatchObject({ inUse: false, parent, kind: 'committed', labels: { a: 'b' } });
        expect(await driver.exists('k')).toBe(false);
        const sealed = describeTree(await layerOf(driver, 'n'));
        await writer.write('after\n');
        expect(describeTree(await layerOf(driver, 'n'))).toBe(sealed);
        expect(readFileSync(join(await layerOf(driver, 'n'), 'log'), 'utf8')).toBe('before\n');
        expect((await driver.cleanup()).deferred).toMatchObject([{ path: left }]);
        await writer.end();
        expect(await driver.cleanup()).toEqual({ removed: 1, deferred: [] });
        expect(existsSync(left)).toBe(false);
      },
    );

    withWriter(
      `remove() of a layer that is mounted ${how} defers its deletion`,
      async ({ driver, writer }) => {
        const left = (await driver.stat('k')).directory ?? '';
        expect((await driver.remove('k')).deferred).toMatch(/mount|uses it/);
        await writer.write('after\n');
        expect(readFileSync(`${left}/fs/log`, 'utf8')).toBe('before\nafter\n');
        await writer.end();
        expect((await driver.cleanup()).deferred).toEqual([]);
        expect(existsSync(left)).toBe(false);
      },
    );
  });
});

/** Programs that hold a file of a base in different ways, and write to it when they are told to. */
const holders: Readonly<Record<string, string>> = {
  'an open file': `
f = open('log', 'a')
def write(): f.write('late'); f.flush()`,
  'a mapped file': `
import mmap
open('log', 'w').write('early')
f = open('log', 'r+b'); m = mmap.mmap(f.fileno(), 0); f.close()
def write(): m[:5] = b'later'; m.flush()`,
};

describe.skipIf(needs('root', 'python3'))(`a base that was detached${needs('root', 'python3')}`, () => {
  const detached = test.extend<{ holder: StartedProcess; how: string }>({
    how: '',
    holder: async ({ driver, target, how }, use) => {
      await driver.prepare('k');
      mount(await driver.mounts('k'), target);
      const program = `import os; os.chdir('${target}')\n${holders[how]}
print('ready', flush=True); input(); write(); print('written', flush=True); input()`;
      const holder = await startProcess('ready', 'python3', ['-c', program]);
      execFileSync('umount', ['-l', target]);
      await use(holder);
      await holder.kill();
    },
  });
  for (const how of Object.keys(holders)) {
    describe(how, () => {
      detached.override({ how });
      detached(`commit() finds ${how} in it`, async ({ driver, holder: _held }) => {
        await expect(driver.commit('n', 'k', { inUse: 'refuse' })).rejects.toMatchObject({
          code: 'FAILED_PRECONDITION',
        });
        expect((await driver.commit('n', 'k')).inUse).toBe(true);
      });

      detached(`commit() with inUse: "copy" copies it because of ${how}`, async ({ driver, holder }) => {
        expect((await driver.commit('n', 'k', { inUse: 'copy' })).inUse).toBe(false);
        const sealed = describeTree(await layerOf(driver, 'n'));
        holder.write('\n');
        await waitFor('the program to write', () => holder.printed.includes('written'));
        expect(describeTree(await layerOf(driver, 'n'))).toBe(sealed);
      });
    });
  }

  test('commit() of a base with a file that is open for reading says that it is not in use', async ({
    driver,
  }) => {
    await driver.prepare('k');
    const file = join(await layerOf(driver, 'k'), 'file');
    writeFileSync(file, '');
    const fd = openSync(file, 'r');
    try {
      expect((await driver.commit('n', 'k')).inUse).toBe(false);
    } finally {
      closeSync(fd);
    }
  });
});

describe.skipIf(lacking)(`an overlay of somebody else${lacking}`, () => {
  const foreign = test.extend<{ other: string }>({
    // Like containerd, which names the layers of a long chain relative to the directory that they are in.
    other: async ({ place, undo }, use) => {
      const names = Array.from({ length: 8 }, (_, index) => `${index + 1}/fs`);
      const script =
        'mkdir -p other/m other/{1..8}/fs; cd other; mount -t overlay overlay -o "lowerdir=$1" m';
      execFileSync('bash', ['-euc', script, 'bash', names.join(':')], { cwd: place });
      undo(() => unmount(join(place, 'other', 'm')));
      await use(join(place, 'other', 'm'));
    },
  });

  foreign(
    'with relative names says nothing about mount() and commit()',
    async ({ driver, target, other: _other }) => {
      await commitLayer(driver, 'base');
      await driver.prepare('k', 'base');
      await driver.mount('k', target);
      await driver.unmount(target);
      expect((await driver.commit('n', 'k', { inUse: 'refuse' })).inUse).toBe(false);
      await driver.prepare('b');
      expect((await driver.commit('c', 'b', { inUse: 'refuse' })).inUse).toBe(false);
    },
  );

  foreign('with relative names puts off a deletion, which says so', async ({ driver, other }) => {
    await commitLayer(driver, 'base');
    const { deferred } = await driver.delete('base');
    expect(deferred).toBe(`the overlay at "${other}", which names its layers by relative paths, may use it`);
    unmount(other);
    expect((await driver.cleanup()).deferred).toEqual([]);
    execFileSync('mount', ['-t', 'tmpfs', 'none', other]);
  });

  foreign('is not unmounted by unmount()', async ({ driver, other }) => {
    await expect(driver.unmount(other)).rejects.toThrow(/nothing of this store is mounted/);
    await expect(driver.unmount(other, { lazy: true })).rejects.toThrow(/nothing of this store is mounted/);
    expect(readdirSync(other)).toEqual([]);
  });
});

/** Commits "k" as "n", and does something once the layer has been measured. @returns whether it was in use */
async function commitWith(
  driver: OverlayDriver,
  afterwards: () => void,
  options: CommitOptions = {},
): Promise<boolean | null> {
  const onProgress = ({ phase }: Progress): void => {
    if (phase === 'syncing') afterwards();
  };
  return (await driver.commit('n', 'k', { onProgress, ...options })).inUse;
}

describe('a layer that is used while it is committed', () => {
  test('commit() tells that a base was in use if it changes after it was measured', async ({ driver }) => {
    await driver.prepare('k');
    const file = join(await layerOf(driver, 'k'), 'file');
    writeFileSync(file, 'before');
    const change = (): void => writeFileSync(file, 'behind its back');
    await expect(commitWith(driver, change, { inUse: 'refuse' })).rejects.toMatchObject({
      code: 'FAILED_PRECONDITION',
    });
    expect(await commitWith(driver, change)).toBe(true);
    await driver.prepare('k');
    expect((await driver.commit('m', 'k', { inUse: 'refuse' })).inUse).toBe(false);
  });

  describe.skipIf(lacking)(`on a parent${lacking}`, () => {
    test('commit() tells that a layer was in use if it was mounted only while it was measured', async ({
      driver,
      target,
    }) => {
      await commitLayer(driver, 'base');
      const mounts = await driver.prepare('k', 'base');
      const use = (): void => {
        mount(mounts, target);
        appendFileSync(join(target, 'file'), 'in passing');
        unmount(target);
      };
      await expect(commitWith(driver, use, { inUse: 'refuse' })).rejects.toMatchObject({
        code: 'FAILED_PRECONDITION',
      });
      // And again, after it has been mounted before.
      expect(await commitWith(driver, use)).toBe(true);
    });

    test('commit() tells that a layer was in use if it was unmounted while it was measured', async ({
      driver,
      target,
    }) => {
      await commitLayer(driver, 'base');
      mount(await driver.prepare('k', 'base'), target);
      expect(await commitWith(driver, () => unmount(target))).toBe(true);
    });

    test('commit() tells that a layer was not in use if it was unmounted before', async ({
      driver,
      target,
    }) => {
      await commitLayer(driver, 'base');
      mount(await driver.prepare('k', 'base'), target);
      writeFileSync(join(target, 'file'), 'written');
      unmount(target);
      expect(await commitWith(driver, () => {}, { inUse: 'refuse' })).toBe(false);
    });
  });
});
