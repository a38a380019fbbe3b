import assert from 'node:assert/strict';
import { type Body, isTypeError, makeCommitted, refuses } from './support.ts';

const proper = [
  '../../etc',
  '/',
  'a b:c,d\\e',
  'line\nbreak',
  '\u{1F600}',
  '__proto__',
  "'; drop table snapshot; --",
  '%s %n',
  '-rf',
  'x'.repeat(4096),
  'é'.repeat(2048),
];

const improper = ['', 'a\0b', 'x'.repeat(4097), 'x'.repeat(5000), 'é'.repeat(2049), 'lone \ud800 surrogate'];

/** Which names, labels and arguments are accepted. */
export const nameCases: Readonly<Record<string, Body>> = {
  'any proper text is a key and a name': async (s) => {
    for (const [index, name] of proper.entries()) {
      await s.prepare(name, undefined, { labels: { index: String(index) } });
      assert.equal((await s.stat(name)).name, name);
      await s.commit(`n${index}`, name);
      await s.delete(`n${index}`);
      await makeCommitted(s, `${index}`);
      await s.prepare('k', `${index}`);
      await s.commit(name, 'k');
      assert.equal((await s.stat(name)).parent, `${index}`);
      await s.view('v', name);
      assert.equal(await s.parent('v'), name);
      await s.remove('v');
    }
  },

  'improper text is refused everywhere': async (s) => {
    await makeCommitted(s, 'base');
    await s.prepare('k');
    for (const name of improper) {
      const wrong = 'INVALID_ARGUMENT';
      await refuses(s, wrong, () => s.prepare(name));
      await refuses(s, wrong, () => s.view(name));
      if (name !== '') await refuses(s, wrong, () => s.prepare('x', name));
      if (name !== '') await refuses(s, wrong, () => s.commit('n', 'k', { parent: name }));
      await refuses(s, wrong, () => s.mounts(name));
      await refuses(s, wrong, () => s.commit(name, 'k'));
      await refuses(s, wrong, () => s.commit('n', name));
      await refuses(s, wrong, () => s.checkpoint(name, 'k'));
      await refuses(s, wrong, () => s.checkpoint('n', name));
      await refuses(s, wrong, () => s.remove(name));
      await refuses(s, wrong, () => s.delete(name));
      await refuses(s, wrong, () => s.parent(name));
      await refuses(s, wrong, () => s.exists(name));
      await refuses(s, wrong, () => s.stat(name));
      await refuses(s, wrong, () => s.update(name, { labels: {} }));
      await refuses(s, wrong, () => s.usage(name));
      await refuses(s, wrong, () => s.children(name));
      await refuses(s, wrong, () => s.chain(name));
    }
  },

  'a value that is not text is a TypeError': async (s) => {
    await s.prepare('k');
    for (const value of [undefined, null, 7, {}, [], Symbol('s'), Buffer.from('k')]) {
      const wrong = value as string;
      await isTypeError(s, () => s.prepare(wrong));
      await isTypeError(s, () => s.stat(wrong));
      await isTypeError(s, () => s.exists(wrong));
      await isTypeError(s, () => s.commit(wrong, 'k'));
      await isTypeError(s, () => s.commit('n', wrong));
      await isTypeError(s, () => s.checkpoint(wrong, 'k'));
      await isTypeError(s, () => s.checkpoint('n', wrong));
      await isTypeError(s, () => s.remove(wrong));
      await isTypeError(s, () => s.mounts(wrong));
      await isTypeError(s, () => s.usage(wrong));
    }
    await isTypeError(s, () => s.prepare('x', 7 as unknown as string));
    await isTypeError(s, () => s.prepare('x', null, { labels: 'a' as unknown as {} }));
    await isTypeError(s, () => s.prepare('x', null, { labels: { a: 1 as unknown as string } }));
    await isTypeError(s, () => s.prepare('x', null, { label: {} } as {}));
    await isTypeError(s, () => s.checkpoint('n', 'k', { signal: 'stop' as unknown as AbortSignal }));
    await isTypeError(s, () => s.commit('n', 'k', { onProgress: 'tell' as unknown as () => void }));
    await isTypeError(s, () => s.checkpoint('n', 'k', { parent: 'base' } as {}));
    await isTypeError(s, () => s.update('k', {} as { labels: {} }));
    await isTypeError(s, () => s.update('k', { labels: {} }, 'labels' as unknown as string[]));
    await isTypeError(s, () => s.walk(undefined as unknown as () => void));
    await isTypeError(s, () => s.walk(() => {}, 7 as unknown as string));
  },

  'labels hold any text, up to 4,096 bytes with their key': async (s) => {
    const labels = { 'a.b/c d': '\n"\u{1F600}\\', ['__proto__']: 'own', k: 'v'.repeat(4095), none: '' };
    await s.prepare('k', null, { labels });
    const kept = (await s.stat('k')).labels;
    for (const [key, value] of Object.entries(labels)) {
      assert.equal(Object.hasOwn(kept, key) ? kept[key] : '', value);
    }
    const wrong = [
      { k: 'v'.repeat(4096) },
      { k: 'v'.repeat(1 << 20) },
      { ['k'.repeat(1 << 20)]: 'v' },
      { '': 'v' },
    ];
    for (const bad of [...wrong, { 'a\0': 'v' }, { a: '\0' }, { a: '\udfff' }]) {
      await refuses(s, 'INVALID_ARGUMENT', () => s.prepare('x', null, { labels: bad }));
      await refuses(s, 'INVALID_ARGUMENT', () => s.view('x', null, { labels: bad }));
      await refuses(s, 'INVALID_ARGUMENT', () => s.commit('x', 'k', { labels: bad }));
      await refuses(s, 'INVALID_ARGUMENT', () => s.checkpoint('x', 'k', { labels: bad }));
      await refuses(s, 'INVALID_ARGUMENT', () => s.update('k', { labels: bad }));
    }
  },

  'an ID mapping label is refused if it is not a mapping': async (s) => {
    const label = 'containerd.io/snapshot/uidmapping';
    await s.prepare('k', null, { labels: { other: 'x' } });
    for (const bad of [
      '0:0',
      'a:b:c',
      '0:0:0',
      '0:1000:65536,lowerdir=/etc',
      '0:4294967295:2',
      '1:2:3,',
      ' 0:1:1',
    ]) {
      await refuses(s, 'INVALID_ARGUMENT', () => s.prepare('x', null, { labels: { [label]: bad } }));
      await refuses(s, 'INVALID_ARGUMENT', () => s.update('k', { labels: { [label]: bad } }));
      await refuses(s, 'INVALID_ARGUMENT', () => s.commit('x', 'k', { labels: { [label]: bad } }));
    }
  },
};
