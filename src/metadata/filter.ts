import { isUtf8 } from 'node:buffer';
import { RE2JS, RE2JSSyntaxException } from 're2js';
import { SnapshotError, wrongType } from '../errors.ts';
import { kindOf } from '../arguments.ts';
import { quote } from '../quote.ts';

/** How a condition compares; `present` stands for a field alone. */
export type Operator = 'present' | '==' | '!=' | '~=';

/** One condition on one field; `label` is the label's key; `value` is empty for `present`. */
export type Selector =
  | { field: 'name' | 'parent' | 'kind'; operator: Operator; value: string }
  | { field: 'label'; label: string; operator: Operator; value: string };

const MAX_FILTER_BYTES = 16 * 1024;

/** The longest pattern, in characters, with its counted repetitions written out: this bounds the cost of a match. */
export const MAX_PATTERN_LENGTH = 5000;

/**
 * Parses one filter in containerd's syntax: the selectors that must all hold.
 *
 *     filter   = selector *("," selector)
 *     selector = path [("==" / "!=" / "~=") value]
 *     path     = field *("." field)
 *     field    = quoted / 1*(letter / digit / "_")
 *     value    = quoted / printable characters without space and comma
 *
 * `quoted` is a string as in Go, in double quotes; the value of `~=` may stand in `/` or `|` instead.
 * White space may precede a field, an operator and a value, but neither a comma, a dot nor the end.
 * The empty filter has no selectors, and takes everything.
 *
 * @throws {SnapshotError} INVALID_ARGUMENT if it does not parse, if a field is unknown, or if a pattern does
 *   not compile
 * @throws {TypeError} if it is not a string
 */
export function parseFilter(text: string): Selector[] {
  checkText(text, 'filter');
  if (Buffer.byteLength(text) > MAX_FILTER_BYTES) {
    throw new SnapshotError(
      'INVALID_ARGUMENT',
      `the filter ${quote(text)} is longer than ${MAX_FILTER_BYTES} bytes`,
    );
  }
  if (text.includes('\0'))
    throw new SnapshotError('INVALID_ARGUMENT', `the filter ${quote(text)} holds a NUL`);
  // containerd takes this character for bytes that were not UTF-8.
  if (text.includes('\uFFFD')) {
    throw new SnapshotError('INVALID_ARGUMENT', `the filter ${quote(text)} holds a replacement character`, {
      hint: String.raw`if it is meant, write "\ufffd"`,
    });
  }
  return text === '' ? [] : new FilterParser(text).filter();
}

/** Reads from left to right. Each method consumes the token that it is named after, or throws. */
class FilterParser {
  readonly #text: string;
  #at = 0;

  constructor(text: string) {
    this.#text = text;
  }

  filter(): Selector[] {
    const selectors: Selector[] = [];
    do selectors.push(this.#selector());
    while (this.#take(/,/y));
    if (!this.#atEnd()) this.#fail('a comma or the end');
    return selectors;
  }

  #selector(): Selector {
    const target = this.#path();
    if (this.#atEnd() || this.#text[this.#at] === ',') return { ...target, operator: 'present', value: '' };
    const operator = this.#operator();
    const value = this.#value(operator);
    if (operator === '~=') compilePattern(value);
    return { ...target, operator, value };
  }

  #path(): { field: 'name' | 'parent' | 'kind' } | { field: 'label'; label: string } {
    this.#skipSpace();
    const start = this.#at;
    const field = this.#field();
    if (field === 'name' || field === 'parent' || field === 'kind') {
      if (this.#text[this.#at] === '.') this.#fail('an operator, a comma or the end');
      return { field };
    }
    if (field !== 'labels') this.#fail('name, parent, kind or labels', start);
    const label: string[] = [];
    while (this.#take(/\./y)) label.push(this.#field());
    if (label.length === 0) this.#fail(`a dot and the label's key`);
    return { field: 'label', label: label.join('.') };
  }

  #field(): string {
    this.#skipSpace();
    return this.#quoted('"') ?? this.#take(/\w+/y)?.[0] ?? this.#fail('a field, plain or in double quotes');
  }

  #operator(): '==' | '!=' | '~=' {
    this.#skipSpace();
    const start = this.#at;
    const operator = this.#take(/[=!~]+/y)?.[0];
    if (operator === '==' || operator === '!=' || operator === '~=') return operator;
    return this.#fail('an operator (==, != or ~=)', start);
  }

  #value(operator: Operator): string {
    this.#skipSpace();
    // As in containerd, only what follows the first character has to be printable.
    const plain = /[^\p{White_Space},.=!~"/|][^\p{White_Space}\p{C},]*/uy;
    return (
      this.#quoted(operator === '~=' ? '"/|' : '"') ??
      this.#take(plain)?.[0] ??
      this.#fail('a value, plain or in double quotes')
    );
  }

  /** The text between two equal quotes out of `quotes`, unescaped; `undefined` if no such quote comes next. */
  #quoted(quotes: string): string | undefined {
    const start = this.#at;
    const end = this.#text[start];
    if (end === undefined || !quotes.includes(end)) return undefined;
    this.#at += 1;
    const pieces: Buffer[] = [];
    while (this.#text[this.#at] !== end) {
      const plain = this.#take(/[^\\\n"/|]+|["/|]/y);
      pieces.push(plain ? Buffer.from(plain[0]) : this.#escape(end));
    }
    this.#at += 1;
    const bytes = Buffer.concat(pieces);
    if (!isUtf8(bytes)) this.#fail('escapes that form UTF-8', start);
    return bytes.toString();
  }

  /** An escape, of a byte or of a character, in a string that ends with the quote `end`. */
  #escape(end: string): Buffer {
    const start = this.#at;
    if (this.#text[start] !== '\\') this.#fail(`the closing ${end}`);
    const hex = this.#take(/\\(?:x([\da-fA-F]{2})|u([\da-fA-F]{4})|U([\da-fA-F]{8}))/y);
    if (hex) {
      const [, byte, short, long] = hex;
      if (byte !== undefined) return Buffer.from(byte, 'hex');
      const code = Number.parseInt(short ?? long ?? '', 16);
      const isCharacter = code <= 0x10ffff && !(code >= 0xd800 && code <= 0xdfff);
      return isCharacter
        ? Buffer.from(String.fromCodePoint(code))
        : this.#fail('an escape of a character', start);
    }
    const octal = this.#take(/\\([0-3][0-7]{2})/y)?.[1];
    if (octal !== undefined) return Buffer.of(Number.parseInt(octal, 8));
    const letter = this.#text[start + 1] ?? '';
    const character = letter === end ? end : letters.get(letter);
    if (character === undefined) this.#fail('an escape as in Go', start);
    this.#at += 2;
    return Buffer.from(character);
  }

  #skipSpace(): void {
    this.#take(/\p{White_Space}+/uy);
  }

  #atEnd(): boolean {
    return this.#at === this.#text.length;
  }

  /** What the sticky expression matches here, if anything, and moves behind it. */
  #take(sticky: RegExp): RegExpExecArray | undefined {
    sticky.lastIndex = this.#at;
    const match = sticky.exec(this.#text) ?? undefined;
    if (match) this.#at = sticky.lastIndex;
    return match;
  }

  #fail(expected: string, at: number = this.#at): never {
    const place =
      at === this.#text.length
        ? 'at the end'
        : `at character ${Array.from(this.#text.slice(0, at)).length + 1}`;
    throw new SnapshotError('INVALID_ARGUMENT', `filter ${quote(this.#text)}: expected ${expected} ${place}`);
  }
}

/** What the letter of an escape stands for. */
const letters: ReadonlyMap<string, string> = new Map([
  ['a', '\x07'],
  ['b', '\b'],
  ['f', '\f'],
  ['n', '\n'],
  ['r', '\r'],
  ['t', '\t'],
  ['v', '\v'],
  ['\\', '\\'],
]);

/**
 * Compiles a pattern in RE2 syntax into a test whether a value holds a match anywhere, in time linear in its
 * length. With its counted repetitions written out a pattern may have at most 5,000 characters.
 *
 * @throws {SnapshotError} INVALID_ARGUMENT if it does not compile, or is too large
 * @throws {TypeError} if it is not a string
 */
export function compilePattern(pattern: string): (value: string) => boolean {
  checkText(pattern, 'pattern');
  // What RE2 itself allows, over a million steps, takes seconds to compile.
  if (patternSize(pattern) > MAX_PATTERN_LENGTH) {
    throw new SnapshotError('INVALID_ARGUMENT', `the pattern ${quote(pattern)} is too large`, {
      hint: `with its counted repetitions written out it may have ${MAX_PATTERN_LENGTH} characters`,
    });
  }
  try {
    const compiled = RE2JS.compile(pattern);
    return (value) => compiled.test(value);
  } catch (error) {
    const reason = error instanceof RE2JSSyntaxException ? error.getDescription() : 'it does not compile';
    throw new SnapshotError('INVALID_ARGUMENT', `pattern ${quote(pattern)}: ${reason}`, { cause: error });
  }
}

/** How long a pattern is, as it stands or with its counted repetitions written out. */
export function patternSize(pattern: string): number {
  return pattern.length > MAX_PATTERN_LENGTH
    ? pattern.length
    : Math.max(pattern.length, lengthWrittenOut(pattern));
}

/** The parts of a pattern that matter to its size: literals, classes, escapes, settings, counts, the rest. */
const patternToken =
  /\\Q.*?(?:\\E|$)|\\[pPx]\{[^}]*\}|\\.|\[\^?\]?(?:\[:\^?\w+:\]|\\.|[^\]\\])*\]|\(\?[a-zA-Z-]*\)|\{\d+(?:,\d*)?\}|./gsu;

/** About how long a pattern is with its counted repetitions written out: rather too much than too little. */
function lengthWrittenOut(pattern: string): number {
  const ignoresCase = /\(\?[a-zA-Z-]*i/.test(pattern);
  const outer: number[] = [];
  let length = 0;
  let last = 0;
  let folding = 0;
  for (const [token] of pattern.matchAll(patternToken)) {
    const [, least, most] = /^\{(\d+)(?:,(\d*))?\}$/.exec(token) ?? [];
    if (least !== undefined) {
      const copies = last * (Math.max(Number(least), Number(most ?? 0), 1) - 1);
      length += copies;
      last += copies;
    } else if (token === '(') {
      outer.push(length);
      length = 0;
      last = 0;
    } else if (token === ')') {
      last = length + 2;
      length = last + (outer.pop() ?? 0);
    } else if (/^[*+?]$/.test(token)) {
      length += 1;
      last += 1;
    } else if (token !== String.raw`\Q\E` && !token.startsWith('(?')) {
      last = token.length;
      length += last;
      // RE2 goes through a range character by character to add the other case.
      if (ignoresCase && token.startsWith('[')) folding += 50 * (token.split('-').length - 1);
    }
  }
  return outer.reduce((sum, part) => sum + part, length) + folding;
}

function checkText(value: unknown, what: string): asserts value is string {
  if (typeof value !== 'string') throw wrongType(`a ${what} must be a string, not ${kindOf(value)}`);
  if (!value.isWellFormed()) {
    throw new SnapshotError('INVALID_ARGUMENT', `the ${what} ${quote(value)} holds a lone surrogate`);
  }
}
