import assert from 'node:assert/strict';
import type { Info, Mount } from '../snapshot.ts';
import { type Body, contents, makeCommitted, namesOf, refuses } from './support.ts';

function layersOf(mounts: readonly Mount[]): string[] {
  const lower = mounts[0]?.options.find((option) => option.startsWith('lowerdir='));
  return lower?.slice('lowerdir='.length).split(':') ?? [];
}

/** From `prepare` to `delete`, with every error on the way. */
export const lifeCases: Readonly<Record<string, Body>> = {
  'an empty store has nothing': async (s) => {
    assert.deepEqual(await contents(s), []);
    await s.walk(() => assert.fail('there is nothing to walk'));
    await s.active(() => assert.fail('there is nothing open'));
    assert.equal(await s.exists('a'), false);
    assert.deepEqual(await s.cleanup(), { removed: 0, deferred: [] });
  },

  'every method fails with NOT_FOUND if its key or name is missing': async (s) => {
    await refuses(s, 'NOT_FOUND', () => s.prepare('k', 'missing'));
    await refuses(s, 'NOT_FOUND', () => s.view('k', 'missing'));
    await refuses(s, 'NOT_FOUND', () => s.mounts('missing'));
    await refuses(s, 'NOT_FOUND', () => s.commit('n', 'missing'));
    await refuses(s, 'NOT_FOUND', () => s.remove('missing'));
    await refuses(s, 'NOT_FOUND', () => s.delete('missing'));
    await refuses(s, 'NOT_FOUND', () => s.parent('missing'));
    await refuses(s, 'NOT_FOUND', () => s.stat('missing'));
    await refuses(s, 'NOT_FOUND', () => s.update('missing', { labels: {} }));
    await refuses(s, 'NOT_FOUND', () => s.usage('missing'));
    await refuses(s, 'NOT_FOUND', () => s.children('missing'));
    await refuses(s, 'NOT_FOUND', () => s.chain('missing'));
  },

  'a prepared snapshot is active, and a bind mount without a parent': async (s) => {
    const mounts = await s.prepare('k', null, { labels: { a: 'b' } });
    assert.equal(mounts.length, 1);
    assert.equal(mounts[0]?.type, 'bind');
    assert.ok(mounts[0].options.includes('rw') && mounts[0].options.includes('rbind'));
    assert.deepEqual(await s.mounts('k'), mounts);
    const info = await s.stat('k');
    assert.equal(info.kind, 'active');
    assert.equal(info.parent, null);
    assert.equal(info.labels['a'], 'b');
    assert.equal(info.createdUs, info.updatedUs);
    assert.equal(info.created.getTime(), Math.trunc(info.createdUs / 1000));
    assert.equal(info.inUse, null);
  },

  'one layer is mounted by a bind mount, several by an overlay': async (s) => {
    await makeCommitted(s, 'one');
    await makeCommitted(s, 'two', 'one');
    const [own] = await s.view('v0');
    assert.ok(own?.type === 'bind' && own.options.includes('ro'));
    const [single] = await s.view('v1', 'one');
    assert.ok(single?.type === 'bind' && single.options.includes('ro'));
    assert.equal(single.source, `${(await s.stat('one')).directory}/fs`);
    const [stacked] = await s.view('v2', 'two');
    assert.ok(
      stacked?.type === 'overlay' && !stacked.options.some((option) => option.startsWith('upperdir=')),
    );
    const upper = await s.prepare('k', 'two');
    assert.deepEqual(layersOf(upper), layersOf([stacked]));
    assert.equal(layersOf(upper)[0], single.source.replace(/\d+\/fs$/, `${(await s.stat('two')).id}/fs`));
    const options = upper[0]?.options.map((option) => option.split('=')[0]).join(' ');
    assert.match(options ?? '', /workdir upperdir lowerdir/);
  },

  'a key or name is taken by a snapshot of any kind': async (s) => {
    await makeCommitted(s, 'base');
    await s.prepare('k');
    await s.view('v');
    for (const taken of ['base', 'k', 'v']) {
      await refuses(s, 'ALREADY_EXISTS', () => s.prepare(taken));
      await refuses(s, 'ALREADY_EXISTS', () => s.view(taken, 'base'));
      await refuses(s, 'ALREADY_EXISTS', () => s.commit(taken, 'k'));
    }
  },

  'only a committed snapshot can be a parent': async (s) => {
    await s.prepare('k');
    await s.view('v');
    for (const parent of ['k', 'v']) {
      await refuses(s, 'INVALID_ARGUMENT', () => s.prepare('x', parent));
      await refuses(s, 'INVALID_ARGUMENT', () => s.view('x', parent));
    }
    await refuses(s, 'NOT_FOUND', () => s.prepare('self', 'self'));
    await s.prepare('empty parent', '');
    assert.equal(await s.parent('empty parent'), null);
  },

  'a commit turns the key into the name': async (s) => {
    await makeCommitted(s, 'base');
    await s.prepare('k', 'base', { labels: { old: '1' } });
    const open = await s.stat('k');
    const info = await s.commit('n', 'k', { labels: { new: '2' } });
    assert.deepEqual(info, await s.stat('n'));
    assert.equal(await s.exists('k'), false);
    assert.equal(info.kind, 'committed');
    assert.equal(info.parent, 'base');
    assert.equal(info.id, open.id);
    assert.equal(info.directory, open.directory);
    assert.equal(info.labels['new'], '2');
    assert.equal(info.labels['old'], undefined);
    assert.ok(info.createdUs > open.createdUs && info.createdUs === info.updatedUs);
    assert.equal(info.inUse, false);
    const { inodes, size } = await s.usage('n');
    assert.ok(inodes >= 1 && size >= 0);
  },

  'only an active snapshot can be committed': async (s) => {
    await makeCommitted(s, 'base');
    await s.view('v');
    await refuses(s, 'FAILED_PRECONDITION', () => s.commit('n', 'base'));
    await refuses(s, 'FAILED_PRECONDITION', () => s.commit('n', 'v'));
    await refuses(s, 'FAILED_PRECONDITION', () => s.mounts('base'));
    await s.prepare('k');
    await refuses(s, 'INVALID_ARGUMENT', () => s.commit('n', 'k', { inUse: 'nonsense' as 'allow' }));
  },

  'a commit can give a parent to a snapshot that has none': async (s) => {
    await makeCommitted(s, 'base');
    await makeCommitted(s, 'other');
    await s.prepare('k');
    await refuses(s, 'NOT_FOUND', () => s.commit('n', 'k', { parent: 'missing' }));
    await refuses(s, 'FAILED_PRECONDITION', () => s.commit('n', 'k', { parent: 'k' }));
    assert.equal((await s.commit('n', 'k', { parent: 'base' })).parent, 'base');
    await s.prepare('k', 'base');
    await refuses(s, 'INVALID_ARGUMENT', () => s.commit('m', 'k', { parent: 'other' }));
    assert.equal((await s.commit('m', 'k', { parent: 'base' })).parent, 'base');
  },

  'remove() takes open snapshots, delete() committed ones': async (s) => {
    await makeCommitted(s, 'base');
    await s.prepare('k', 'base');
    await s.view('v', 'base');
    await refuses(s, 'FAILED_PRECONDITION', () => s.remove('base'));
    await refuses(s, 'FAILED_PRECONDITION', () => s.delete('k'));
    await refuses(s, 'FAILED_PRECONDITION', () => s.delete('base'));
    assert.deepEqual(await s.remove('k'), {});
    assert.deepEqual(await s.remove('v'), {});
    assert.deepEqual(await s.delete('base'), {});
    assert.deepEqual(await contents(s), []);
    await s.prepare('k');
    assert.equal(await s.exists('k'), true);
  },

  'children(), chain() and parent() agree with each other': async (s) => {
    await makeCommitted(s, 'a');
    await makeCommitted(s, 'b', 'a');
    await makeCommitted(s, 'c', 'b');
    await s.prepare('k', 'b');
    await s.view('v', 'a');
    assert.deepEqual(namesOf(await s.children('a')), ['b', 'v']);
    assert.deepEqual(namesOf(await s.children('b')), ['c', 'k']);
    assert.deepEqual(await s.children('c'), []);
    assert.deepEqual(namesOf(await s.chain('k')), ['b', 'a']);
    assert.deepEqual(await s.chain('a'), []);
    assert.deepEqual((await s.chain('c'))[1], await s.stat('a'));
    assert.equal(await s.parent('c'), 'b');
    assert.equal(await s.parent('a'), null);
  },

  'update changes labels and nothing else': async (s) => {
    await makeCommitted(s, 'base');
    const before = await s.stat('base');
    const first = await s.update('base', { labels: { a: '1', b: '2', c: '' } });
    assert.ok(first.updatedUs > before.updatedUs && first.createdUs === before.createdUs);
    const labels = async (): Promise<unknown> => {
      const { a, b, 'x.y/z': xyz, c } = (await s.stat('base')).labels;
      return { a, b, xyz, c };
    };
    assert.deepEqual(await labels(), { a: '1', b: '2', xyz: undefined, c: undefined });
    await s.update('base', { labels: { a: '9', 'x.y/z': '3' } }, ['labels.x.y/z']);
    assert.deepEqual(await labels(), { a: '1', b: '2', xyz: '3', c: undefined });
    await s.update('base', { labels: { b: '' } }, ['labels.b', 'labels.missing']);
    assert.deepEqual(await labels(), { a: '1', b: undefined, xyz: '3', c: undefined });
    await s.update('base', { labels: { c: '4' } }, ['labels']);
    assert.deepEqual(await labels(), { a: undefined, b: undefined, xyz: undefined, c: '4' });
    for (const path of ['name', 'kind', 'labels.', '', 'parent', 'label.a']) {
      await refuses(s, 'INVALID_ARGUMENT', () => s.update('base', { labels: {} }, [path]));
    }
  },

  'the usage of a view is nothing, that of an active snapshot is measured now': async (s) => {
    await s.prepare('k');
    await makeCommitted(s, 'base');
    await s.view('v', 'base');
    assert.deepEqual(await s.usage('v'), { inodes: 0, size: 0 });
    assert.equal((await s.usage('k')).inodes, 1);
    assert.equal((await s.usage('base')).inodes, 1);
  },

  'the function of walk() and active() may write to the store': async (s) => {
    await makeCommitted(s, 'a');
    await makeCommitted(s, 'b', 'a');
    await s.prepare('k', 'b');
    const walked: Info[] = [];
    await s.walk(async (info) => {
      walked.push(info);
      await makeCommitted(s, `on ${info.name}`, info.name);
      await s.update(info.name, { labels: { seen: 'yes' } });
    });
    assert.deepEqual(namesOf(walked), ['a', 'b']);
    const open: string[] = [];
    await s.active(async ({ name }) => {
      open.push(name);
      await s.remove(name);
    });
    assert.deepEqual(open, ['k']);
    await assert.rejects(
      s.walk(() => {
        throw new Error('enough');
      }),
      /enough/,
    );
  },

  'a chain of 500 layers is the longest that can be built on': async (s) => {
    await makeCommitted(s, 'l1');
    for (let depth = 2; depth <= 500; depth += 1) await makeCommitted(s, `l${depth}`, `l${depth - 1}`);
    await s.prepare('k', 'l500');
    assert.equal(layersOf(await s.mounts('k')).length, 500);
    await s.commit('l501', 'k');
    await refuses(s, 'FAILED_PRECONDITION', () => s.prepare('x', 'l501'));
    await refuses(s, 'FAILED_PRECONDITION', () => s.view('x', 'l501'));
    await s.prepare('orphan');
    await refuses(s, 'FAILED_PRECONDITION', () => s.commit('x', 'orphan', { parent: 'l501' }));
  },

  'writes at the same time all finish, each with its own outcome': async (s) => {
    await makeCommitted(s, 'base');
    const keys = Array.from({ length: 50 }, (_, i) => `k${i % 25}`);
    const results = await Promise.allSettled(keys.map((key) => s.prepare(key, 'base')));
    assert.equal(results.filter(({ status }) => status === 'fulfilled').length, 25);
    assert.equal((await s.children('base')).length, 25);
    await Promise.all(keys.slice(0, 25).map((key) => s.remove(key)));
    assert.deepEqual(await s.children('base'), []);
  },

  'after close() every method fails, except close()': async (s) => {
    await makeCommitted(s, 'base');
    await s.close();
    await s.close();
    const code = { code: 'FAILED_PRECONDITION' };
    await assert.rejects(s.prepare('k'), code);
    await assert.rejects(s.view('k'), code);
    await assert.rejects(s.mounts('k'), code);
    await assert.rejects(s.commit('n', 'k'), code);
    await assert.rejects(s.checkpoint('n', 'k'), code);
    await assert.rejects(s.remove('k'), code);
    await assert.rejects(s.delete('base'), code);
    await assert.rejects(s.parent('base'), code);
    await assert.rejects(s.exists('base'), code);
    await assert.rejects(s.stat('base'), code);
    await assert.rejects(s.update('base', { labels: {} }), code);
    await assert.rejects(s.usage('base'), code);
    await assert.rejects(
      s.walk(() => {}),
      code,
    );
    await assert.rejects(
      s.active(() => {}),
      code,
    );
    await assert.rejects(s.children('base'), code);
    await assert.rejects(s.chain('base'), code);
    await assert.rejects(s.cleanup(), code);
    await assert.rejects(contents(s), code);
  },
};
