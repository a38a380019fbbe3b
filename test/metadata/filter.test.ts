import * as fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { SnapshotError } from '../../src/errors.ts';
import { type Operator, compilePattern, parseFilter } from '../../src/metadata/filter.ts';

const name = (operator: Operator, value = '') => ({ field: 'name', operator, value });
const label = (key: string, operator: Operator = 'present', value = '') => ({
  field: 'label',
  label: key,
  operator,
  value,
});

/** The message of the `INVALID_ARGUMENT` that `fn` throws. */
function refusal(fn: () => unknown): string {
  try {
    fn();
  } catch (error) {
    if (error instanceof SnapshotError && error.code === 'INVALID_ARGUMENT') return error.message;
    throw error;
  }
  throw new Error('expected it to be refused');
}

/** Quotes as Go's `strconv.Quote`, or, with `ascii`, its `QuoteToASCII`. */
function goQuote(text: string, ascii = false): string {
  const plain = ascii ? /^[ -~]$/ : /^[^\p{C}\p{Z}\uFFFD]$|^ $/u;
  const escaped = Array.from(text, (character) => {
    if (character === '"' || character === '\\') return `\\${character}`;
    if (plain.test(character)) return character;
    const code = character.codePointAt(0) ?? 0;
    if (code < 0x80) return `\\x${code.toString(16).padStart(2, '0')}`;
    return code <= 0xffff
      ? `\\u${code.toString(16).padStart(4, '0')}`
      : `\\U${code.toString(16).padStart(8, '0')}`;
  });
  return `"${escaped.join('')}"`;
}

describe('filters that containerd accepts', () => {
  test.each([
    ['', []],
    ['name', [name('present')]],
    ['parent', [{ field: 'parent', operator: 'present', value: '' }]],
    ['kind==active', [{ field: 'kind', operator: '==', value: 'active' }]],
    ['kind==nonsense', [{ field: 'kind', operator: '==', value: 'nonsense' }]],
    ['name==foo', [name('==', 'foo')]],
    ['name!=foo', [name('!=', 'foo')]],
    ['name~=foo', [name('~=', 'foo')]],
    ['"name"==foo', [name('==', 'foo')]],
    ['name==foo,labels.bar', [name('==', 'foo'), label('bar')]],
    ['name,name,name', [name('present'), name('present'), name('present')]],
  ])('parseFilter() accepts the fields and operators of %j', (text, selectors) => {
    expect(parseFilter(text)).toEqual(selectors);
  });

  test.each([
    ['labels.foo', 'foo'],
    ['labels._0', '_0'],
    ['labels.0', '0'],
    ['labels.a.b', 'a.b'],
    ['labels."a.b".c', 'a.b.c'],
    ['"labels"."a"."b"', 'a.b'],
    ['labels."containerd.io/gc.root"', 'containerd.io/gc.root'],
    ['labels."with \\\\ and \\"".post', 'with \\ and ".post'],
    ['labels."a,b==c"', 'a,b==c'],
    ['labels.""', ''],
    ['labels."name"', 'name'],
  ])('parseFilter() accepts the label key of %j', (text, key) => {
    expect(parseFilter(text)).toEqual([label(key)]);
    expect(parseFilter(`${text}==v`)).toEqual([label(key, '==', 'v')]);
  });

  test.each([
    ['name==omg_asdf.asdf-qwer', 'omg_asdf.asdf-qwer'],
    ['name==sha256:0a/b', 'sha256:0a/b'],
    ['name==a=b', 'a=b'],
    ['name==a!~"|/', 'a!~"|/'],
    ['name==1', '1'],
    ['name==日本💥', '日本💥'],
    ['name==?', '?'],
    ['name==\\x41', '\\x41'],
    ['name==\u0001a', '\u0001a'],
    ['name==""', ''],
    ['name=="too complex, yo"', 'too complex, yo'],
    ['name=="a/b|c"', 'a/b|c'],
    ['name=="\t"', '\t'],
  ])('parseFilter() accepts the value of %j', (text, value) => {
    expect(parseFilter(text)).toEqual([name('==', value)]);
    expect(parseFilter(`${text},name`)).toEqual([name('==', value), name('present')]);
  });

  test.each([
    ['name~=[abc]+', '[abc]+'],
    ['name~=a/b|c', 'a/b|c'],
    ['name~="^a,b$"', '^a,b$'],
    ['name~=/^a{1,2}$/', '^a{1,2}$'],
    ['name~=/a|b"/', 'a|b"'],
    ['name~=/a\\/b/', 'a/b'],
    ['name~=/\\\\d/', '\\d'],
    ['name~=|a/b"|', 'a/b"'],
    ['name~=|a\\|b|', 'a|b'],
    ['name~=//', ''],
    ['name~=\\d+', '\\d+'],
  ])('parseFilter() accepts the pattern of %j', (text, value) => {
    expect(parseFilter(text)).toEqual([name('~=', value)]);
  });

  test.each([
    [String.raw`\a\b\f\n\r\t\v`, '\x07\b\f\n\r\t\v'],
    [String.raw`\\\"`, '\\"'],
    [String.raw`\x41\x7f\x00`, 'A\x7f\0'],
    [String.raw`\101\000`, 'A\0'],
    [String.raw`\xe6\x97\xa5`, '日'],
    [String.raw`\346\227\245`, '日'],
    [String.raw`\u65e5\u00E9\ufffd\ufeff`, '日é\uFFFD\uFEFF'],
    [String.raw`\U0001F4a5\U0010FFFF`, '💥\u{10FFFF}'],
    ['\uFEFFa', '\uFEFFa'],
  ])('parseFilter() decodes the escapes of %j', (text, value) => {
    expect(parseFilter(`name=="${text}"`)).toEqual([name('==', value)]);
  });

  test.each(['  name', 'name ==foo', 'name== foo', '\n\tname\u00a0==\u0085\u3000foo', 'name==foo, \n name'])(
    'parseFilter() skips the white space of %j',
    (text) => {
      expect(parseFilter(text)[0]).toMatchObject({ field: 'name' });
    },
  );
});

describe('filters that containerd rejects', () => {
  test.each([
    [' ', 'expected a field, plain or in double quotes at the end'],
    [',', 'expected a field, plain or in double quotes at character 1'],
    ['==foo', 'expected a field, plain or in double quotes at character 1'],
    ['name,', 'expected a field, plain or in double quotes at the end'],
    ['name,,name', 'expected a field, plain or in double quotes at character 6'],
    ['labels.', 'expected a field, plain or in double quotes at the end'],
    ['labels.?"a"', 'expected a field, plain or in double quotes at character 8'],
    ['labels.|foo|==a', 'expected a field, plain or in double quotes at character 8'],
    ['labels./foo/', 'expected a field, plain or in double quotes at character 8'],
    ['labels.é', 'expected a field, plain or in double quotes at character 8'],
    ['labels."💥".é', 'expected a field, plain or in double quotes at character 12'],
  ])('parseFilter() rejects %j: %s', (text, message) => {
    expect(refusal(() => parseFilter(text))).toBe(`filter ${JSON.stringify(text)}: ${message}`);
  });

  test.each([
    ['name=foo', 5],
    ['name===foo', 5],
    ['name==~foo', 5],
    ['name>foo', 5],
    ['name foo', 6],
    ['name ,name', 6],
    ['labels."a"b', 11],
    ['labels.ns/key==value', 10],
    ['labels .a==b', 0],
  ])('parseFilter() rejects the operator of %j', (text, place) => {
    const expected =
      place === 0
        ? `a dot and the label's key at character 7`
        : `an operator (==, != or ~=) at character ${place}`;
    expect(refusal(() => parseFilter(text))).toBe(`filter ${JSON.stringify(text)}: expected ${expected}`);
  });

  test.each([
    ['name==', 'at the end'],
    ['name== ', 'at the end'],
    ['name~=,name', 'at character 7'],
    ['name==.a', 'at character 7'],
    ['name== !=a', 'at character 8'],
    ['name==/foo/', 'at character 7'],
    ['name!=|foo|', 'at character 7'],
    ['name==/foo', 'at character 7'],
  ])('parseFilter() rejects the value of %j, %s', (text, place) => {
    expect(refusal(() => parseFilter(text))).toContain(
      `expected a value, plain or in double quotes ${place}`,
    );
  });

  test.each([
    ['name==foo ', 'expected a comma or the end at character 10'],
    ['name==foo ,name', 'expected a comma or the end at character 10'],
    ['name==a\u0001', 'expected a comma or the end at character 8'],
    ['name==a\u200d', 'expected a comma or the end at character 8'],
    ['name=="a"b', 'expected a comma or the end at character 10'],
    ['name~=/foo/bar', 'expected a comma or the end at character 12'],
  ])('parseFilter() rejects %j: %s', (text, message) => {
    expect(refusal(() => parseFilter(text))).toContain(message);
  });

  test.each([
    ['"', 'the closing " at the end'],
    ['"foo', 'the closing " at the end'],
    ['"a\nb"', 'the closing " at character 9'],
    [String.raw`"a\"`, 'the closing " at the end'],
    [String.raw`"\q"`, 'an escape as in Go at character 8'],
    [String.raw`"\/"`, 'an escape as in Go at character 8'],
    [String.raw`"\'"`, 'an escape as in Go at character 8'],
    [String.raw`"\x4"`, 'an escape as in Go at character 8'],
    [String.raw`"\08"`, 'an escape as in Go at character 8'],
    [String.raw`"\400"`, 'an escape as in Go at character 8'],
    [String.raw`"\u12"`, 'an escape as in Go at character 8'],
    [String.raw`"\U0001F60"`, 'an escape as in Go at character 8'],
    [String.raw`"\U00110000"`, 'an escape of a character at character 8'],
    ['"\\', 'an escape as in Go at character 8'],
  ])('parseFilter() rejects the quoted value %j: expected %s', (text, message) => {
    expect(refusal(() => parseFilter(`name==${text}`))).toContain(`expected ${message}`);
  });

  test('a quoted pattern ends only with the character that began it', () => {
    expect(refusal(() => parseFilter('name~=/foo|'))).toContain('expected the closing / at the end');
    expect(refusal(() => parseFilter(String.raw`name~=/a\|/`))).toContain('expected an escape as in Go');
  });

  test('parseFilter() rejects a replacement character, which stands for bytes that were not UTF-8', () => {
    expect(refusal(() => parseFilter('name==\uFFFD'))).toContain('holds a replacement character');
    expect(refusal(() => parseFilter('labels."\uFFFD"'))).toContain('holds a replacement character');
  });
});

describe('filters that containerd accepts, but that take nothing', () => {
  test.each([
    ['id==foo', 'expected name, parent, kind or labels at character 1'],
    ['name,Name', 'expected name, parent, kind or labels at character 6'],
    ['name, "labels.a"', 'expected name, parent, kind or labels at character 7'],
    ['labels', `expected a dot and the label's key at the end`],
    ['labels==a', `expected a dot and the label's key at character 7`],
    ['name.first', 'expected an operator, a comma or the end at character 5'],
    ['kind.a==b', 'expected an operator, a comma or the end at character 5'],
    [String.raw`name=="\xff"`, 'expected escapes that form UTF-8 at character 7'],
    [String.raw`labels."\377"`, 'expected escapes that form UTF-8 at character 8'],
    [String.raw`name=="\xe6日"`, 'expected escapes that form UTF-8 at character 7'],
    [String.raw`name=="\ud83d\udca5"`, 'expected an escape of a character at character 8'],
    [String.raw`name=="\UFFFFFFFF"`, 'expected an escape of a character at character 8'],
  ])('parseFilter() rejects %j: %s', (text, message) => {
    expect(refusal(() => parseFilter(text))).toBe(`filter ${JSON.stringify(text)}: ${message}`);
  });

  test.each([
    ['name~=(', 'pattern "(": missing closing )'],
    ['name==a,labels.b~=a**', 'pattern "a**": invalid nested repetition operator'],
  ])('parseFilter() rejects the pattern of %j, which does not compile', (text, message) => {
    expect(refusal(() => parseFilter(text))).toBe(message);
  });

  test('parseFilter() rejects NUL, a lone surrogate and more than 16 KiB', () => {
    expect(refusal(() => parseFilter('name=="\0"'))).toContain('holds a NUL');
    expect(refusal(() => parseFilter('name==\uD800'))).toContain('holds a lone surrogate');
    const longest = `name==${'é'.repeat(8 * 1024 - 3)}`;
    expect(parseFilter(longest)).toHaveLength(1);
    expect(refusal(() => parseFilter(`${longest}e`))).toContain('longer than 16384 bytes');
  });

  test('the message about a long filter shortens it', () => {
    expect(refusal(() => parseFilter(`name=${'x'.repeat(1000)}`)).length).toBeLessThan(250);
  });
});

test.each([undefined, null, 1, ['name']])(
  'parseFilter() and compilePattern() reject %j with a TypeError',
  (value) => {
    expect(() => Reflect.apply(parseFilter, undefined, [value])).toThrow(TypeError);
    expect(() => Reflect.apply(compilePattern, undefined, [value])).toThrow(TypeError);
  },
);

test('parseFilter() reads back any text that is quoted as Go does', () => {
  fc.assert(
    fc.property(fc.string({ unit: 'binary', maxLength: 200 }), fc.boolean(), (text, ascii) => {
      const quoted = goQuote(text, ascii);
      expect(parseFilter(`name==${quoted}`)).toEqual([name('==', text)]);
      expect(parseFilter(`labels.${quoted}!=${quoted}`)).toEqual([label(text, '!=', text)]);
    }),
  );
});

test('parseFilter() reads back any text of which every byte is escaped', () => {
  fc.assert(
    fc.property(fc.string({ unit: 'binary', maxLength: 200 }), fc.boolean(), (text, octal) => {
      const escapes = Array.from(Buffer.from(text), (byte) =>
        octal ? `\\${byte.toString(8).padStart(3, '0')}` : `\\x${byte.toString(16).padStart(2, '0')}`,
      );
      expect(parseFilter(`name=="${escapes.join('')}"`)).toEqual([name('==', text)]);
    }),
  );
});

test('parseFilter() throws nothing but INVALID_ARGUMENT, whatever the text', () => {
  const tokens = [
    'name',
    'labels',
    '.',
    ',',
    '==',
    '~=',
    '!',
    '"',
    '/',
    '|',
    '\\',
    '\\x4',
    'u0041',
    ' ',
    '(',
  ];
  const garbage = fc.oneof(
    fc.array(fc.constantFrom(...tokens)).map((parts) => parts.join('')),
    fc.array(fc.constantFrom(...tokens)).map((parts) => `name~=${parts.join('')}`),
    fc.array(fc.nat(0xffff)).map((units) => `name==${String.fromCharCode(...units)}`),
    fc.string({ unit: 'binary' }),
  );
  fc.assert(
    fc.property(garbage, (text) => {
      try {
        expect(Array.isArray(parseFilter(text))).toBe(true);
      } catch (error) {
        expect(error).toBeInstanceOf(SnapshotError);
        expect(error).toMatchObject({ code: 'INVALID_ARGUMENT' });
      }
    }),
    { numRuns: 1000 },
  );
});

describe('compilePattern()', () => {
  const matches: [pattern: string, value: string, taken: boolean][] = [
    ['', 'anything', true],
    ['b', 'abc', true],
    ['^b', 'abc', false],
    ['^a.c$', 'a💥c', true],
    ['a$', 'a\n', false],
    ['^b', 'a\nb', false],
    ['(?i)SHA256:', 'sha256:0', true],
    [String.raw`^[0-9a-f]{64}$`, '0'.repeat(64), true],
    [String.raw`^[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}$`, '0b5e3c1e-7a7c-4b7e-9d3e-1f2a3b4c5d6e', true],
    [String.raw`^\p{Greek}+$`, 'αβ', true],
    [String.raw`\Qa.b\E`, 'axb', false],
    ['(a*)*b', 'a'.repeat(4096), false],
    ['(a|a)*$', `${'a'.repeat(4096)}b`, true],
    ['(?:a?){800}b', 'a'.repeat(4096), false],
    ['a'.repeat(4096), 'a'.repeat(4096), true],
  ];
  const shorten = (text: string): string => JSON.stringify(text.length > 80 ? `${text.slice(0, 80)}…` : text);
  for (const [pattern, value, taken] of matches) {
    test(`the pattern ${shorten(pattern)} ${taken ? 'matches' : 'does not match'} ${shorten(value)}`, () => {
      expect(compilePattern(pattern)(value)).toBe(taken);
    });
  }

  test.each([
    ['(', 'missing closing )'],
    ['a)', 'unexpected )'],
    ['[a', 'missing closing ]'],
    ['*', 'missing argument to repetition operator'],
    ['(?=a)', 'invalid or unsupported Perl syntax'],
    ['(?<=a)b', 'invalid named capture'],
    [String.raw`(a)\1`, 'invalid escape sequence'],
    ['a{1001}', 'invalid repeat count'],
    ['(?:a{100}){40}', 'invalid repeat count'],
  ])('compilePattern() rejects %j: %s', (pattern, reason) => {
    expect(refusal(() => compilePattern(pattern))).toBe(`pattern ${JSON.stringify(pattern)}: ${reason}`);
  });

  test('compilePattern() rejects a lone surrogate', () => {
    expect(refusal(() => compilePattern('\uDC00'))).toContain('holds a lone surrogate');
  });

  test.each([
    ['deep groups', '('.repeat(4000)],
    ['deep groups, closed', '('.repeat(1500) + ')'.repeat(1500)],
    ['deep alternatives', '(?:a|'.repeat(990)],
  ])('compilePattern() rejects %s without overflowing the stack', (_, pattern) => {
    expect(refusal(() => compilePattern(pattern))).toMatch(/missing closing \)|nests too deeply/);
  });

  test.each([
    ['more than 5,000 characters', '('.repeat(16 * 1024)],
    ['nested counts', '((((a{100}){100}){100}){100})'],
    ['counts in a row', '.{1000}'.repeat(6)],
    ['a counted group', `(?:${'a'.repeat(100)}){100}`],
    ['a lower bound alone', 'a{1000,}'.repeat(6)],
    ['counts of what may be absent', '(?:.{0,1000}){0,10}'],
    ['a count behind a setting', `(${'a'.repeat(100)})(?i){100}`],
    ['a count behind an empty quotation', String.raw`(${'a'.repeat(100)})\Q\E{100}`],
    ['a count behind another quantifier', `(${'a'.repeat(100)})*(?i){100}`],
    ['a class with brackets in it', `(?:${'[)]'.repeat(50)}){50}`],
    ['wide ranges in either case', `(?i)${String.raw`[b-\x{1e800}]`.repeat(300)}`],
  ])('compilePattern() rejects %s as too large', (_, pattern) => {
    expect(refusal(() => compilePattern(pattern))).toContain('is too large');
  });

  test.each([
    ['a{1000}', 'a'.repeat(1000)],
    [String.raw`^(?:\x{61}){400}$`, 'a'.repeat(400)],
    ['^[{(]{3}$', '({('],
    [String.raw`^\({2}[)]{2}$`, '(())'],
    [String.raw`^\Q({1000}){1000}\E$`, '({1000}){1000}'],
    ['^a{,1000}{,1000}$', 'a{,1000}{,1000}'],
  ])('compilePattern() accepts %j, which only looks large or is just small enough', (pattern, value) => {
    expect(compilePattern(pattern)(value)).toBe(true);
  });
});
