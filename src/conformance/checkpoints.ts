import assert from 'node:assert/strict';
import { type Body, contents, makeCommitted, namesOf, refuses } from './support.ts';

/** What a checkpoint does and refuses. */
export const checkpointCases: Record<string, Body> = {
  'a checkpoint leaves the snapshot active': async (s) => {
    await makeCommitted(s, 'base');
    await s.prepare('k', 'base', { labels: { of: 'key' } });
    const open = await s.stat('k');
    const mounts = await s.mounts('k');
    const first = await s.checkpoint('one', 'k', { labels: { of: 'one' } });
    const second = await s.checkpoint('two', 'k');
    assert.deepEqual(first, await s.stat('one'));
    assert.deepEqual(second, await s.stat('two'));
    for (const info of [first, second]) {
      assert.equal(info.kind, 'committed');
      assert.equal(info.parent, 'base');
      assert.equal(info.inUse, false);
      assert.ok(info.createdUs > open.createdUs);
    }
    assert.equal(first.labels['of'], 'one');
    assert.equal(second.labels['of'], undefined);
    assert.deepEqual(await s.stat('k'), open);
    assert.deepEqual(await s.mounts('k'), mounts);
    assert.deepEqual(namesOf(await s.children('base')), ['k', 'one', 'two']);
    assert.equal((await s.usage('one')).inodes, 1);
    await s.prepare('on one', 'one');
    assert.equal((await s.commit('last', 'k')).parent, 'base');
  },

  'a checkpoint needs an active snapshot and a free name': async (s) => {
    await makeCommitted(s, 'base');
    await s.prepare('k');
    await s.view('v');
    for (const taken of ['base', 'k', 'v']) {
      await refuses(s, 'ALREADY_EXISTS', () => s.checkpoint(taken, 'k'));
    }
    await refuses(s, 'NOT_FOUND', () => s.checkpoint('n', 'missing'));
    await refuses(s, 'FAILED_PRECONDITION', () => s.checkpoint('n', 'v'));
    await refuses(s, 'FAILED_PRECONDITION', () => s.checkpoint('n', 'base'));
    await refuses(s, 'INVALID_ARGUMENT', () => s.checkpoint('', 'k'));
    await refuses(s, 'INVALID_ARGUMENT', () => s.checkpoint('n', 'k', { labels: { a: '\0' } }));
  },

  'of several checkpoints under one name at the same time, one succeeds': async (s) => {
    await s.prepare('k');
    const results = await Promise.allSettled(Array.from({ length: 8 }, () => s.checkpoint('n', 'k')));
    assert.equal(results.filter(({ status }) => status === 'fulfilled').length, 1);
    assert.deepEqual(namesOf(await contents(s)).toSorted(), ['k', 'n']);
    assert.deepEqual(await s.cleanup(), { removed: 0, deferred: [] });
  },

  'a commit or checkpoint that is aborted has changed nothing': async (s) => {
    await s.prepare('k');
    const before = await contents(s);
    const signal = AbortSignal.abort(new Error('not any more'));
    await assert.rejects(s.checkpoint('n', 'k', { signal }), /not any more/);
    await assert.rejects(s.commit('n', 'k', { signal }), /not any more/);
    for (const phase of ['copying', 'measuring', 'syncing']) {
      const abort = new AbortController();
      const onProgress = (progress: { phase: string }): void => {
        if (progress.phase === phase) abort.abort(new Error(`in ${phase}`));
      };
      const watched = { signal: abort.signal, onProgress };
      await assert.rejects(s.checkpoint('n', 'k', watched), new RegExp(`in ${phase}`));
      if (phase !== 'copying') await assert.rejects(s.commit('n', 'k', watched), new RegExp(`in ${phase}`));
    }
    const onProgress = (): void => {
      throw new Error('no more of it');
    };
    await assert.rejects(s.checkpoint('n', 'k', { onProgress }), /no more of it/);
    assert.deepEqual(await contents(s), before);
  },

  'a commit with inUse refuse or copy succeeds if the layer is not in use': async (s) => {
    await makeCommitted(s, 'base');
    await s.prepare('k', 'base');
    const { inUse } = await s.commit('refused if in use', 'k', { inUse: 'refuse' });
    assert.equal(inUse, false);
    await s.prepare('k', 'base');
    const info = await s.commit('copied if in use', 'k', { inUse: 'copy' });
    assert.deepEqual(info, await s.stat('copied if in use'));
    assert.equal(await s.exists('k'), false);
  },
};
