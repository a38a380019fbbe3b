import { resolve } from 'node:path';
import { describe, expect, test } from 'vitest';
import { wrongType } from '../src/errors.ts';
import {
  abortSignal,
  boolean,
  callback,
  checkLabels,
  checkName,
  checkOptions,
  checkParent,
  isThenable,
  milliseconds,
  oneOf,
  optional,
  strings,
  toLabelKeys,
  toRoot,
  withDefault,
} from '../src/arguments.ts';

const invalid = expect.objectContaining({ name: 'SnapshotError', code: 'INVALID_ARGUMENT' }) as Error;

describe('keys and names', () => {
  test('checkName() takes up to 4096 bytes of UTF-8, not characters', () => {
    const longest = 'é'.repeat(2048);
    expect(checkName(longest, 'key')).toBe(longest);
    expect(() => checkName(`${longest}x`, 'key')).toThrow(invalid);
    expect(() => checkName(`${longest}x`, 'key')).toThrow('has 4097 bytes, more than 4096');
  });

  test.for([
    ['an empty name', '', 'the name is empty'],
    ['a NUL', 'a\0b', 'holds a NUL'],
    ['a lone surrogate', 'a\ud800', 'holds a lone surrogate'],
  ])('checkName() rejects %s', ([, value, message]) => {
    expect(() => checkName(value, 'name')).toThrow(invalid);
    expect(() => checkName(value, 'name')).toThrow(message);
  });

  test.for([
    [undefined, 'undefined'] as const,
    [null, 'null'] as const,
    [7, 'number'] as const,
    [['a'], 'an array'] as const,
  ])('checkName() rejects %j with a TypeError that says what it is', ([value, kind]) => {
    expect(() => checkName(value, 'key')).toThrow(wrongType(`key must be a string, not ${kind}`));
  });

  test('checkName() keeps control characters, slashes and dots: a name is no path', () => {
    for (const name of ['..', 'a/b', '/', 'a\nb', '\u001b', ' ']) expect(checkName(name, 'name')).toBe(name);
  });

  test('checkParent() takes undefined, null and an empty string for no parent', () => {
    for (const none of [undefined, null, '']) expect(checkParent(none)).toBeNull();
    expect(checkParent('base')).toBe('base');
    expect(() => checkParent(0)).toThrow(TypeError);
    expect(() => checkParent('a\0')).toThrow(invalid);
  });
});

describe('labels', () => {
  test('checkLabels() leaves out labels with an empty value', () => {
    expect(checkLabels({ a: '1', b: '' })).toEqual({ a: '1' });
    expect(checkLabels(undefined)).toEqual({});
  });

  test('checkLabels() keeps a label that is called __proto__', () => {
    const labels = checkLabels(JSON.parse('{ "__proto__": "x" }'));
    expect(Object.entries(labels)).toEqual([['__proto__', 'x']]);
    expect(Object.getPrototypeOf(labels)).toBe(Object.prototype);
  });

  test('checkLabels() limits a key and its value to 4096 bytes together', () => {
    expect(checkLabels({ é: 'x'.repeat(4094) })).toEqual({ é: 'x'.repeat(4094) });
    expect(() => checkLabels({ é: 'x'.repeat(4095) })).toThrow(invalid);
  });

  test('checkLabels() rejects an empty key, NUL and lone surrogates', () => {
    for (const labels of [{ '': 'x' }, { 'a\0': 'x' }, { a: '\0' }, { '\udc00': 'x' }, { a: '\udc00' }]) {
      expect(() => checkLabels(labels), JSON.stringify(labels)).toThrow(invalid);
    }
  });

  test('checkLabels() rejects what is not an object of strings with a TypeError', () => {
    for (const labels of [
      null,
      'a',
      1,
      ['a'],
      new Map([['a', 'b']]),
      { a: 1 },
      { a: null },
      { a: undefined },
    ]) {
      expect(() => checkLabels(labels)).toThrow(TypeError);
    }
  });

  test('toLabelKeys() gives the keys that field paths name, or all', () => {
    expect(toLabelKeys(['labels.a', 'labels.b.c', 'labels.labels'])).toEqual(['a', 'b.c', 'labels']);
    expect(toLabelKeys([])).toBe('all');
    expect(toLabelKeys(['labels.a', 'labels'])).toBe('all');
    for (const path of ['name', 'labels.', 'label.a', '']) {
      expect(() => toLabelKeys([path]), path).toThrow(invalid);
    }
    expect(() => toLabelKeys('labels.a')).toThrow(TypeError);
    expect(() => toLabelKeys([1])).toThrow(TypeError);
  });
});

describe('options', () => {
  const checks = {
    quick: optional(boolean),
    mode: withDefault(oneOf('fast', 'safe'), 'safe'),
    names: optional(strings()),
    patience: optional(milliseconds(1000)),
    signal: optional(abortSignal),
    onEnd: optional(callback<() => void>()),
  };

  test('checkOptions() gives what was given, and the defaults of what was left out', () => {
    const onEnd = (): void => {};
    expect(checkOptions(undefined, checks)).toEqual({ mode: 'safe' });
    expect(checkOptions({ quick: undefined, mode: undefined }, checks)).toEqual({ mode: 'safe' });
    const given = {
      quick: true,
      mode: 'fast',
      names: ['a'],
      patience: 1000,
      signal: AbortSignal.abort(),
      onEnd,
    };
    expect(checkOptions(given, checks)).toEqual(given);
  });

  test.for(['bogus', 'toString', '__proto__', 'constructor'])(
    'checkOptions() rejects the unknown option %j',
    (name) => {
      const given: unknown = JSON.parse(`{ ${JSON.stringify(name)}: 1 }`);
      expect(() => checkOptions(given, checks)).toThrow(wrongType(`there is no option "${name}"`));
    },
  );

  test('checkOptions() rejects what is not an object with a TypeError', () => {
    for (const given of [null, [], 'quick', 1]) expect(() => checkOptions(given, checks)).toThrow(TypeError);
    expect(() => checkOptions('quick', checks)).toThrow(
      expect.objectContaining({ code: 'INVALID_ARGUMENT' }),
    );
  });

  test.for([
    [{ quick: 1 }, 'quick must be a boolean, not number'],
    [{ quick: null }, 'quick must be a boolean, not null'],
    [{ mode: 1 }, 'mode must be a string, not number'],
    [{ names: 'a' }, 'names must be an array, not string'],
    [{ names: ['a', 1] }, 'names must be an array of strings'],
    [{ patience: '1' }, 'patience must be a number, not string'],
    [{ signal: {} }, 'signal must be an AbortSignal, not object'],
    [{ onEnd: {} }, 'onEnd must be a function, not object'],
  ] as const)('checkOptions() rejects %j with a TypeError', ([given, message]) => {
    expect(() => checkOptions(given, checks)).toThrow(wrongType(message));
  });

  test.for([{ mode: 'slow' }, { patience: -1 }, { patience: 1001 }, { patience: Number.NaN }])(
    'checkOptions() rejects %o with INVALID_ARGUMENT',
    (given) => {
      expect(() => checkOptions(given, checks)).toThrow(invalid);
    },
  );

  test('the error about an unknown word names the words that are known', () => {
    expect(() => checkOptions({ mode: 'slow' }, checks)).toThrow('mode is "fast" or "safe", not "slow"');
  });
});

describe('other arguments', () => {
  test('toRoot() gives an absolute path, and rejects an empty one and NUL', () => {
    expect(toRoot('store')).toBe(resolve('store'));
    expect(toRoot('/a/../b')).toBe('/b');
    expect(() => toRoot('')).toThrow(invalid);
    expect(() => toRoot('/a\0')).toThrow(invalid);
    expect(() => toRoot(7)).toThrow(TypeError);
  });

  test('isThenable() knows promises and what acts like one', () => {
    expect(isThenable(Promise.resolve())).toBe(true);
    // oxlint-disable unicorn/no-thenable -- They are what is tested.
    expect(isThenable({ then() {} })).toBe(true);
    for (const other of [undefined, null, 1, {}, { then: 1 }]) expect(isThenable(other)).toBe(false);
    // oxlint-enable unicorn/no-thenable
  });
});
