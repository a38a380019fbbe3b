import assert from 'node:assert/strict';
import { mkdir, readFile, readdir, rename, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { Body } from './support.ts';
import type { Conformance } from './types.ts';

async function isAsWritten(tree: string): Promise<void> {
  assert.deepEqual((await readdir(tree)).toSorted(), ['changed', 'directory', 'moved']);
  assert.deepEqual(await readdir(join(tree, 'directory')), []);
  assert.equal(await readFile(join(tree, 'changed'), 'utf8'), 'after');
  assert.equal(await readFile(join(tree, 'moved'), 'utf8'), 'kept');
}

/** Files that are written through mounts, committed and read back. */
export function mountCases(withMount: NonNullable<Conformance['withMount']>): Readonly<Record<string, Body>> {
  return {
    'files written through a mount are committed, built on and viewed': async (s) => {
      await withMount(await s.prepare('k'), async (tree) => {
        await mkdir(join(tree, 'directory/below'), { recursive: true });
        await writeFile(join(tree, 'directory/kept'), 'kept');
        await writeFile(join(tree, 'changed'), 'before');
        await writeFile(join(tree, 'deleted'), 'gone soon');
      });
      await s.commit('base', 'k');
      await withMount(await s.prepare('k', 'base'), async (tree) => {
        await writeFile(join(tree, 'changed'), 'after');
        await rm(join(tree, 'deleted'));
        await rename(join(tree, 'directory/kept'), join(tree, 'moved'));
        await rm(join(tree, 'directory'), { recursive: true });
        await mkdir(join(tree, 'directory'));
      });
      await s.commit('next', 'k');
      await withMount(await s.view('v', 'next'), async (tree) => {
        await isAsWritten(tree);
        await assert.rejects(writeFile(join(tree, 'new'), ''), { code: 'EROFS' });
      });
      await withMount(await s.prepare('k', 'next'), isAsWritten);
      await withMount(await s.view('old', 'base'), async (tree) => {
        assert.equal(await readFile(join(tree, 'changed'), 'utf8'), 'before');
        await assert.rejects(writeFile(join(tree, 'new'), ''), { code: 'EROFS' });
      });
    },

    'a removed workspace leaves its parent as it was': async (s) => {
      await withMount(await s.prepare('k'), (tree) => writeFile(join(tree, 'file'), 'base'));
      await s.commit('base', 'k');
      await withMount(await s.prepare('k', 'base'), (tree) => writeFile(join(tree, 'file'), 'scratch'));
      assert.deepEqual(await s.remove('k'), {});
      await withMount(await s.view('v', 'base'), async (tree) => {
        assert.equal(await readFile(join(tree, 'file'), 'utf8'), 'base');
      });
    },

    'a commit of a mounted snapshot reports the use, or refuses': async (s) => {
      const mounts = await s.prepare('k');
      await withMount(mounts, async () => {
        await assert.rejects(s.commit('n', 'k', { inUse: 'refuse' }), { code: 'FAILED_PRECONDITION' });
        assert.equal((await s.commit('n', 'k')).inUse, true);
      });
      assert.equal((await s.stat('n')).inUse, true);
    },
  };
}
