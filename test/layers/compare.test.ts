import { lstatSync, readFileSync, readdirSync, readlinkSync } from 'node:fs';
import { join } from 'node:path';
import fc from 'fast-check';
import { describe, expect } from 'vitest';
import type { Change, DiffOptions, OverlayDriver } from '../../src/index.ts';
import { withMount } from '../../src/mount/index.ts';
import { test } from '../support/fixtures.ts';
import { changesOf, layerOf } from '../support/layers.ts';
import { needs } from '../support/needs.ts';
import { makeOddTree, sh, treeCommands } from '../support/tree.ts';

const lacking = needs('root', ...treeCommands);

/** Makes an active snapshot and runs a script in its tree. */
async function work(
  driver: OverlayDriver,
  key: string,
  parent: string | null,
  script: string,
): Promise<void> {
  await driver.prepare(key, parent);
  await withMount(await driver.mounts(key), (tree) => sh(script, tree));
}

/** Commits a snapshot, after running a script in its tree. */
async function commit(
  driver: OverlayDriver,
  name: string,
  parent: string | null,
  script: string,
): Promise<void> {
  await work(driver, `making ${name}`, parent, script);
  await driver.commit(name, `making ${name}`);
}

/** Changes in short: `M /file (mode owner)`. */
function short(changes: readonly Change[]): string[] {
  return changes.map(({ kind, path, differences }) => {
    const more = differences.length === 0 ? '' : ` (${differences.join(' ')})`;
    return `${kind.charAt(0).toUpperCase()} ${path}${more}`;
  });
}

async function shortDiff(driver: OverlayDriver, keyOrName: string, options?: DiffOptions): Promise<string[]> {
  return short(await changesOf(driver, keyOrName, options));
}

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

type Description = ReturnType<typeof describeFiles>;

/** What can be seen of a snapshot. */
async function describeSnapshot(driver: OverlayDriver, name: string): Promise<Description> {
  await driver.view('plain', name);
  try {
    return await withMount(await driver.mounts('plain'), (tree) => describeFiles(tree));
  } finally {
    await driver.remove('plain');
  }
}

/** The same comparison, made by looking at everything. */
function plainDiff(after: Description, before: Description): string[] {
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

describe.skipIf(lacking)(`a comparison${lacking}`, () => {
  test('diff() tells of attributes that only other overlays would take for their own', async ({ driver }) => {
    await commit(driver, 'base', null, 'touch file; setfattr -n user.overlay.origin -v 1 file');
    await work(driver, 'workspace', 'base', 'setfattr -n user.overlay.origin -v 2 file; chmod 600 file');
    expect(await shortDiff(driver, 'workspace')).toEqual(['M /file (mode attributes)']);
  });

  test('diff() tells what was added, modified and deleted, and how', async ({ driver, place }) => {
    await commit(
      driver,
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
      driver,
      'workspace',
      'base',
      `
      touch -r same ${place}/time
      chmod 600 mode; chown 5:6 owner; echo more >> size; touch -d 2020-01-01 time
      echo CONTENTS > contents; touch -r same contents
      ln -sfn there target; setfattr -n user.a -v b attributes; rm type; mkfifo type
      rm node; mknod node c 1 3
      rm -r gone replaced; mkdir replaced added; echo new > replaced/new; echo new > added/file
      mv renamed moved; chmod 700 kept; rm ${place}/time`,
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
    expect(await shortDiff(driver, 'workspace', { contents: true })).toEqual(changes);
    expect(await shortDiff(driver, 'workspace')).toEqual(
      changes.filter((change) => !change.includes('/contents')),
    );
    await driver.checkpoint('captured', 'workspace');
    expect(await shortDiff(driver, 'captured', { contents: true })).toEqual(changes);
    expect(await changesOf(driver, 'captured', { against: 'workspace', contents: true })).toEqual([]);
    await driver.view('reader', 'captured');
    expect(await changesOf(driver, 'reader')).toEqual([]);
    expect(await shortDiff(driver, 'reader', { against: 'base', contents: true })).toEqual(changes);
    // The other way round, what was added was deleted.
    const back = await shortDiff(driver, 'base', { against: 'captured', contents: true });
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

  test('diff() of a base names every kind of file in it as added', async ({ driver }) => {
    await driver.prepare('odd');
    makeOddTree(await layerOf(driver, 'odd'));
    const changes = await changesOf(driver, 'odd');
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
    expect(await changesOf(driver, 'odd', { against: null })).toEqual(changes);
  });

  test('diff() finds nothing between a tree with one of everything and its copy', async ({ driver }) => {
    await driver.prepare('odd');
    const layer = await layerOf(driver, 'odd');
    makeOddTree(layer);
    // A base must not hold whiteouts.
    sh('find . -type c -name "*white*" -delete', layer);
    await driver.checkpoint('copy', 'odd');
    expect(await changesOf(driver, 'copy', { against: 'odd', contents: true })).toEqual([]);
  });

  test('diff() of snapshots with a common base finds what their own layers changed', async ({ driver }) => {
    await commit(
      driver,
      'base',
      null,
      'mkdir -p large/part; (cd large/part; seq 2000 | xargs touch); echo x > file; touch -d 2001-01-01 file',
    );
    await commit(driver, 'one', 'base', 'echo one > file; mkdir -p side/a');
    await commit(driver, 'two', 'one', 'rm -r large/part; echo two > large/file');
    await work(driver, 'other', 'base', 'rmdir side 2> /dev/null || mkdir side; echo other > side/b');
    expect(await shortDiff(driver, 'two')).toEqual(['A /large/file', 'D /large/part/']);
    expect(await shortDiff(driver, 'other', { against: 'two' })).toEqual([
      'M /file (time size)',
      'D /large/file',
      'A /large/part/',
      ...Array.from({ length: 2000 }, (_, n) => `A /large/part/${n + 1}`).toSorted(),
      'D /side/a/',
      'A /side/b',
    ]);
  });

  test('diff() agrees with a plain comparison of both trees, whatever was done to them', async ({
    driver,
  }) => {
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
          await commit(driver, name(which), parent === null ? null : name(parent), layers[at] ?? '');
        }
        const trees: (readonly [name: string, tree: Description])[] = [];
        for (const which of Object.keys(parents)) {
          trees.push([name(which), await describeSnapshot(driver, name(which))]);
        }
        for (const [one, after] of trees) {
          for (const [other, before] of trees) {
            const found = await shortDiff(driver, one, { against: other, contents: true });
            expect(found).toEqual(plainDiff(after, before));
          }
        }
      }),
      { numRuns: 25, includeErrorInReport: true },
    );
  });
});
