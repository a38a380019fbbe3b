import * as fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { quote, quoteWhole } from '../src/quote.ts';

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
