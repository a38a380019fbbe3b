import * as fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import {
  escapeHidden,
  escapeLines,
  hasHidden,
  jsonText,
  quote,
  quoteBytes,
  quoteWhole,
} from '../src/quote.ts';

describe('quoteWhole()', () => {
  test.for<[what: string, text: string, quoted: string]>([
    ['a line feed', '\n', String.raw`"\n"`],
    ['the start of a terminal sequence', '\u001b[2J', String.raw`"\u001b[2J"`],
    ['DEL', '\u007f', String.raw`"\u007f"`],
    ['a C1 control character, which some terminals obey', '\u009b2J', String.raw`"\u009b2J"`],
    ['a line separator', '\u2028', String.raw`"\u2028"`],
    ['a character without width', 'a\u200bb', String.raw`"a\u200bb"`],
    ['a change of the direction of text', '\u202egnp.exe', String.raw`"\u202egnp.exe"`],
    ['an invisible character beyond 16 bits', '\u{e0041}', String.raw`"\udb40\udc41"`],
    ['a character for private use', '\ue000', String.raw`"\ue000"`],
    ['a lone surrogate', '\ud800', String.raw`"\ud800"`],
    ['a quotation mark and a backslash', '"\\', String.raw`"\"\\"`],
  ])('quoteWhole() escapes %s', ([, text, quoted]) => {
    expect(quoteWhole(text)).toBe(quoted);
  });

  test('quoteWhole() leaves letters of any script, spaces and emoji as they are', () => {
    expect(quoteWhole('layer 日本 é ü 💥')).toBe('"layer 日本 é ü 💥"');
  });

  test('quoteWhole() gives JSON of the same text, with nothing invisible in it', () => {
    fc.assert(
      fc.property(fc.string({ unit: 'binary' }), (text) => {
        const quoted = quoteWhole(text);
        expect(JSON.parse(quoted)).toBe(text);
        expect(quoted).not.toMatch(/[\p{C}\p{Zl}\p{Zp}]/u);
      }),
    );
  });
});

describe('quote()', () => {
  test('quote() keeps up to 120 characters and shortens what is longer to as many', () => {
    expect(quote('x'.repeat(120))).toBe(`"${'x'.repeat(120)}"`);
    expect(quote('x'.repeat(121))).toBe(`"${'x'.repeat(117)}..."`);
  });

  test('quote() gives well-formed text even if it cuts a character in two', () => {
    const quoted = quote(`${'x'.repeat(116)}💥${'x'.repeat(10)}`);
    expect(quoted.isWellFormed()).toBe(true);
    expect(quoted).toMatch(/x\\ud83d\.\.\."$/);
  });
});

describe('escapeHidden()', () => {
  test('escapeHidden() leaves everything but hidden characters as it is', () => {
    expect(escapeHidden(`ENOENT: open '/m\u001B]0;x\u0007\u001B[2J\u202E\n"\\'`)).toBe(
      String.raw`ENOENT: open '/m\u001b]0;x\u0007\u001b[2J\u202e\n"\'`,
    );
    expect(escapeHidden('layer 日本 é ü 💥 "quoted" \\')).toBe('layer 日本 é ü 💥 "quoted" \\');
  });

  test('escapeHidden() changes nothing that it has escaped already', () => {
    fc.assert(
      fc.property(fc.string({ unit: 'binary' }), (text) => {
        const escaped = escapeHidden(text);
        expect(hasHidden(escaped)).toBe(false);
        expect(escapeHidden(escaped)).toBe(escaped);
      }),
    );
  });

  test('escapeLines() keeps the ends of lines', () => {
    expect(escapeLines('one\n\ttwo\u009B')).toBe(String.raw`one
\ttwo\u009b`);
  });
});

test('jsonText() is the same value without hidden characters, on as many lines as JSON has', () => {
  const value = { 'key\u202E': ['\u007F', 'line\nline', '\u{e0041}', '\ud800'], number: 1 };
  for (const indent of [undefined, 2]) {
    const text = jsonText(value, indent);
    expect(JSON.parse(text)).toEqual(value);
    expect(text.split('\n').map(hasHidden)).not.toContain(true);
    expect(text.split('\n')).toHaveLength(JSON.stringify(value, null, indent).split('\n').length);
  }
});

test.for<[what: string, bytes: string, quoted: string]>([
  [
    'as quoteWhole() does',
    '6d1b5be280aeefbfbd',
    String.raw`"m\u001b[\u202e\ufffd"`.replace(String.raw`\ufffd`, '\uFFFD'),
  ],
  ['bytes that are no UTF-8', '61ff62c3', String.raw`"a\xffb\xc3"`],
  ['a surrogate, which is not UTF-8', '61eda080', String.raw`"a\xed\xa0\x80"`],
  ['UTF-8 between other bytes', 'ffe697a5fff09f92a5221b', String.raw`"\xff日\xff💥\"\u001b"`],
])('quoteBytes() shows %s', ([, bytes, quoted]) => {
  expect(quoteBytes(Buffer.from(bytes, 'hex'))).toBe(quoted);
});
