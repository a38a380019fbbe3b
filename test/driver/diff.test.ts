import { existsSync, lstatSync, readFileSync, readdirSync, readlinkSync } from 'node:fs';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { type Change, type DiffOptions, OverlayDriver } from '../../src/index.ts';
import { withMount } from '../../src/mount/index.ts';
import { isRoot } from '../support/needs.ts';
import { assertWhole, makeRoot } from '../support/store.ts';
import { makeOddTree, missing, sh, treeCommands } from '../support/tree.ts';

const lacking = isRoot ? missing(...treeCommands) : ['root'];
const needs = lacking.length === 0 ? '' : ` (needs ${lacking.join(', ')})`;

let store: ReturnType<typeof makeRoot>;
let root: string;
let driver: OverlayDriver;
beforeEach(async () => {
  store = makeRoot();
  root = join(store.root, 'store');
  driver = await OverlayDriver.open(root, { backups: false });
});
afterEach(async () => {
  await driver.close();
  try {
    assertWhole(root);
  } finally {
    store.remove();
  }
});

/** Makes an active snapshot and runs a script in its tree. */
async function work(key: string, parent: string | null, script: string): Promise<void> {
  await driver.prepare(key, parent);
  await withMount(await driver.mounts(key), (tree) => sh(script, tree));
}

async function commit(name: string, parent: string | null, script: string): Promise<void> {
  await work('in work', parent, script);
  await driver.commit(name, 'in work');
}

async function diff(keyOrName: string, options?: DiffOptions): Promise<Change[]> {
  const changes: Change[] = [];
  for await (const change of driver.diff(keyOrName, options)) changes.push(change);
  return changes;
}

/** Changes in short: `M /file (mode owner)`. */
function short(changes: readonly Change[]): string[] {
  return changes.map(({ kind, path, differences }) => {
    const more = differences.length === 0 ? '' : ` (${differences.join(' ')})`;
    return `${kind.charAt(0).toUpperCase()} ${path}${more}`;
  });
}

const shortDiff = async (...args: Parameters<typeof diff>): Promise<string[]> => short(await diff(...args));

describe.skipIf(lacking.length > 0)(`a comparison${needs}`, () => {
  test('tells what was added, modified and deleted, and how', async () => {
    await commit(
      'base',
      null,
      `
      mkdir -p kept gone/deep replaced renamed
      touch gone/deep/file replaced/old renamed/in
      for f in mode owner size time contents target attributes type same; do echo $f > $f; done
      ln -sf here target; mknod node c 1 2
      touch -d '2001-02-03 04:05:06.7' *`,
    );
    await work(
      'workspace',
      'base',
      `
      touch -r same /tmp/overlite-diff-time
      chmod 600 mode; chown 5:6 owner; echo more >> size; touch -d 2020-01-01 time
      echo CONTENTS > contents; touch -r same contents
      ln -sfn there target; setfattr -n user.a -v b attributes; rm type; mkfifo type
      rm node; mknod node c 1 3
      rm -r gone replaced; mkdir replaced added; echo new > replaced/new; echo new > added/file
      mv renamed moved; chmod 700 kept; rm /tmp/overlite-diff-time`,
    );
    const changes = [
      'M /attributes (attributes)',
      'A /added/',
      'A /added/file',
      'M /contents (contents)',
      'D /gone/',
      'M /kept/ (mode)',
      'M /mode (mode)',
      'A /moved/',
      'A /moved/in',
      'M /node (time device)',
      'M /owner (owner)',
      'D /renamed/',
      'A /replaced/new',
      'D /replaced/old',
      'M /size (time size)',
      'M /target (time target)',
      'M /time (time)',
      'M /type (type)',
    ].toSorted((one, other) => Buffer.compare(Buffer.from(one.slice(2)), Buffer.from(other.slice(2))));
    // Of two files that are alike in size and time to the nanosecond, the contents are read when asked to.
    expect(await shortDiff('workspace', { contents: true })).toEqual(changes);
    expect(await shortDiff('workspace')).toEqual(changes.filter((change) => !change.includes('/contents')));
    await driver.checkpoint('captured', 'workspace');
    expect(await shortDiff('captured', { contents: true })).toEqual(changes);
    expect(await diff('captured', { against: 'workspace', contents: true })).toEqual([]);
    await driver.view('reader', 'captured');
    expect(await diff('reader')).toEqual([]);
    expect(await shortDiff('reader', { against: 'base', contents: true })).toEqual(changes);
    // The other way round, what was added was deleted.
    const back = await shortDiff('base', { against: 'captured', contents: true });
    expect(back.filter((change) => !change.startsWith('M'))).toEqual([
      'D /added/',
      'A /gone/',
      'A /gone/deep/',
      'A /gone/deep/file',
      'D /moved/',
      'A /renamed/',
      'A /renamed/in',
      'D /replaced/new',
      'A /replaced/old',
    ]);
  });

  test('of a base is with nothing, and names what it finds', async () => {
    await driver.prepare('odd');
    makeOddTree(`${(await driver.stat('odd')).directory}/fs`);
    const changes = await diff('odd');
    expect(new Set(changes.map(({ kind }) => kind))).toEqual(new Set(['added']));
    expect(changes.map(({ path }) => path)).not.toContain('/');
    const of = (path: string): Change | undefined => changes.find((change) => change.path === path);
    expect(of('/fifo')).toMatchObject({ type: 'fifo', size: null });
    expect(of('/block')).toMatchObject({ type: 'block device' });
    expect(of('/socket')).toMatchObject({ type: 'socket' });
    expect(of('/link')).toMatchObject({ type: 'symbolic link' });
    expect(of('/size-4095')).toMatchObject({ type: 'file', size: 4095 });
    const raw = changes.find(({ path }) => path.startsWith('/bad') && path.endsWith('\n'))?.rawPath;
    expect(raw).toEqual(Buffer.from('/bad\u00FF/\u00FE\n', 'latin1'));
    expect(await diff('odd', { against: null })).toEqual(changes);
  });

  test('of the same tree finds nothing, however odd that is', async () => {
    await driver.prepare('odd');
    const layer = `${(await driver.stat('odd')).directory}/fs`;
    makeOddTree(layer);
    await driver.checkpoint('copy', 'odd');
    expect(await diff('copy', { against: 'odd', contents: true })).toEqual([]);
  });

  test('looks only where a layer of one side has something', async () => {
    await commit('base', null, 'mkdir -p large/part; (cd large/part; seq 2000 | xargs touch); echo x > file');
    await commit('one', 'base', 'echo one > file; mkdir -p side/a');
    await commit('two', 'one', 'rm -r large/part; echo two > large/file');
    await work('other', 'base', 'rmdir side 2> /dev/null || mkdir side; echo other > side/b');
    expect(await shortDiff('two')).toEqual(['A /large/file', 'D /large/part/']);
    expect(await shortDiff('other', { against: 'two' })).toEqual([
      'M /file (time size)',
      'D /large/file',
      'A /large/part/',
      ...Array.from({ length: 2000 }, (_, n) => `A /large/part/${n + 1}`).toSorted(),
      'D /side/a/',
      'A /side/b',
    ]);
  });

  test('agrees with a plain comparison of both trees, whatever was done to them', async () => {
    const path = fc
      .array(fc.constantFrom('a', 'b', 'c'), { minLength: 1, maxLength: 3 })
      .map((parts) => parts.join('/'));
    const action = fc
      .tuple(fc.constantFrom(...Object.values(COMMANDS)), path, path)
      .map(([command, one, other]) => `(${command(one, other)}) 2> /dev/null || true`);
    const actions = fc.array(action, { maxLength: 12 }).map((commands) => commands.join('\n'));
    let round = 0;
    await fc.assert(
      fc.asyncProperty(actions, actions, actions, actions, async (...layers) => {
        round += 1;
        const name = (which: string): string => `${round} ${which}`;
        const parents = { base: null, left: 'base', 'left-2': 'left', right: 'base' };
        for (const [at, [which, parent]] of Object.entries(parents).entries()) {
          const key = name(`making ${which}`);
          await driver.prepare(key, parent === null ? null : name(parent));
          await withMount(await driver.mounts(key), (tree) => {
            sh(layers[at] ?? '', tree);
          });
          await driver.commit(name(which), key);
        }
        for (const one of Object.keys(parents)) {
          for (const other of Object.keys(parents)) {
            const found = await shortDiff(name(one), { against: name(other), contents: true });
            expect(found).toEqual(await plainDiff(name(one), name(other)));
          }
        }
      }),
      { numRuns: 25 },
    );
  });
});

/** What a shell does for an action; it may be that it cannot be done. */
const COMMANDS = {
  write: (one: string, other: string) => `printf %s ${other} > ${one}`,
  mkdir: (one: string) => `mkdir -p ${one}`,
  remove: (one: string) => `rm -r ${one}`,
  rename: (one: string, other: string) => `mv -T ${one} ${other}`,
  link: (one: string, other: string) => `ln -sfn ${other} ${one}`,
  chmod: (one: string) => `chmod 700 ${one}`,
};

/** What can be seen of each file of a tree, by its path. */
function describeFiles(tree: string, below = '/'): Map<string, Record<string, unknown>> {
  const found = new Map<string, Record<string, unknown>>();
  const status = lstatSync(join(tree, below), { bigint: true });
  const type = status.isDirectory() ? 'directory' : status.isSymbolicLink() ? 'link' : 'file';
  found.set(below, {
    type,
    mode: status.mode,
    ...(type !== 'directory' && { time: status.mtimeNs }),
    ...(type === 'file' && { size: status.size, contents: readFileSync(join(tree, below), 'latin1') }),
    ...(type === 'link' && { target: readlinkSync(join(tree, below)) }),
  });
  if (type === 'directory') {
    for (const entry of readdirSync(join(tree, below), { withFileTypes: true })) {
      const path = `${below}${entry.name}${entry.isDirectory() ? '/' : ''}`;
      for (const [at, what] of describeFiles(tree, path)) found.set(at, what);
    }
  }
  return found;
}

/** The same comparison, made by looking at everything. */
async function plainDiff(one: string, other: string): Promise<string[]> {
  const trees: Map<string, Record<string, unknown>>[] = [];
  for (const name of [one, other]) {
    await driver.view('plain', name);
    await withMount(await driver.mounts('plain'), (tree) => trees.push(describeFiles(tree)));
    await driver.remove('plain');
  }
  const [after = new Map(), before = new Map()] = trees;
  const lines: string[] = [];
  const order = (a: string, b: string): number => Buffer.compare(Buffer.from(a), Buffer.from(b));
  let gone: string | undefined;
  for (const path of [...new Set([...after.keys(), ...before.keys()])].toSorted(order)) {
    const [now, then] = [after.get(path), before.get(path)];
    if (then === undefined) lines.push(`A ${path}`);
    else if (now === undefined) {
      if (gone !== undefined && path.startsWith(gone)) continue;
      lines.push(`D ${path}`);
      if (path.endsWith('/')) gone = path;
    } else {
      const differs =
        now['type'] === then['type']
          ? ['mode', 'time', 'size', 'contents', 'target'].filter(
              (what) => now[what] !== then[what] && !(what === 'contents' && now['size'] !== then['size']),
            )
          : ['type'];
      if (differs.length > 0) lines.push(`M ${path} (${differs.join(' ')})`);
    }
  }
  return lines;
}

describe.skipIf(!isRoot)(`a comparison that cannot be made${isRoot ? '' : ' (needs root)'}`, () => {
  test('says what is missing or wrong', async () => {
    await commit('base', null, 'echo x > file');
    await expect(diff('nowhere')).rejects.toMatchObject({ code: 'NOT_FOUND' });
    await expect(diff('base', { against: 'nowhere' })).rejects.toMatchObject({ code: 'NOT_FOUND' });
    expect(() => driver.diff('')).toThrow(/the key or name is empty/);
    expect(() => driver.diff(7 as unknown as string)).toThrow(TypeError);
    expect(() => driver.diff('base', { contents: 'yes' as unknown as boolean })).toThrow(TypeError);
    expect(() => driver.diff('base', { signal: 1 as unknown as AbortSignal })).toThrow(TypeError);
    expect(() => driver.diff('base', { agains: 'base' } as DiffOptions)).toThrow(/no option "agains"/);
    const signal = AbortSignal.abort(new Error('enough'));
    await expect(diff('base', { signal })).rejects.toThrow('enough');
    await driver.prepare('work', 'base');
    const { directory } = await driver.stat('work');
    sh(`mv ${directory}/fs ${directory}/away`, root);
    await expect(diff('work')).rejects.toMatchObject({ code: 'DATA_LOSS' });
    sh(`mv ${directory}/away ${directory}/fs`, root);
    expect(await diff('work')).toEqual([]);
  });

  test('that is left before its end leaves nothing mounted, and nothing open', async () => {
    await commit('base', null, 'seq 500 | xargs touch');
    const open = (): string[] =>
      readdirSync('/proc/self/fd')
        .map((fd) => (existsSync(`/proc/self/fd/${fd}`) ? readlinkSync(`/proc/self/fd/${fd}`) : ''))
        .filter((path) => path === '/' || path === join(root, 'snapshots', '1', 'fs'));
    const held = open();
    for await (const { path } of driver.diff('base')) {
      expect(open()).not.toEqual(held);
      if (path === '/100') break;
    }
    expect(open()).toEqual(held);
    await driver.delete('base');
    expect(await driver.cleanup()).toMatchObject({ deferred: [] });
    await driver.close();
    await expect(diff('base')).rejects.toMatchObject({ code: 'FAILED_PRECONDITION' });
  });
});
