import { RE2JS } from 're2js';
import { SnapshotError } from '../errors.ts';
import { kindOf, quote } from '../names.ts';

export type Operator = 'present' | '==' | '!=' | '~=';

/** One condition on one field; `label` is the key of a label. The value of `present` is empty. */
export type Selector =
  | { readonly field: 'name' | 'parent' | 'kind'; readonly operator: Operator; readonly value: string }
  | { readonly field: 'label'; readonly label: string; readonly operator: Operator; readonly value: string };

const MAX_FILTER_BYTES = 16_384;
const MAX_PATTERN_BYTES = 1024;
const MAX_PATTERN_REPEATS = 1000;

const escapes: Readonly<Record<string, number>> = { a: 7, b: 8, f: 12, n: 10, r: 13, t: 9, v: 11, '\\': 92 };

/**
 * Parses a filter in containerd's syntax: selectors after commas, of which each is a field path alone, or with an
 * operator and a value. An empty filter has no selectors, and takes everything.
 *
 * @throws {TypeError} if it is not a string
 * @throws {SnapshotError} INVALID_ARGUMENT if it does not parse, or is about a field that snapshots do not have
 */
export function parseFilter(text: unknown): Selector[] {
  if (typeof text !== 'string') throw new TypeError(`a filter must be a string, not ${kindOf(text)}`);
  if (text.includes('\0') || !text.isWellFormed() || Buffer.byteLength(text) > MAX_FILTER_BYTES) {
    throw new SnapshotError(
      'INVALID_ARGUMENT',
      `filter ${quote(text)} holds a NUL or a lone surrogate, or is too long`,
    );
  }
  return text === '' ? [] : new Parser(text).filter();
}

class Parser {
  readonly #text: string;
  #at = 0;

  constructor(text: string) {
    this.#text = text;
  }

  filter(): Selector[] {
    const selectors = [this.#selector()];
    while (!this.#end()) {
      if (this.#take(/,/y) === undefined) this.#fail('a comma or the end');
      selectors.push(this.#selector());
    }
    return selectors;
  }

  #selector(): Selector {
    const start = this.#at;
    const path = [this.#field()];
    while (this.#take(/\./y) !== undefined) path.push(this.#field());
    const operator = this.#end() || this.#peek(/,/y) ? 'present' : this.#operator();
    const value = operator === 'present' ? '' : this.#value(operator);
    const [field = '', ...rest] = path;
    if (field === 'labels' && rest.length > 0)
      return { field: 'label', label: rest.join('.'), operator, value };
    if ((field === 'name' || field === 'parent' || field === 'kind') && rest.length === 0) {
      return { field, operator, value };
    }
    this.#at = start;
    return this.#fail('name, parent, kind or labels.KEY');
  }

  #field(): string {
    return this.#take(/\w+/y) ?? this.#quoted('"') ?? this.#fail('a field');
  }

  #operator(): '==' | '!=' | '~=' {
    const operator = this.#take(/[=!~]+/y);
    if (operator === '==' || operator === '!=' || operator === '~=') return operator;
    return this.#fail('one of == != ~=');
  }

  #value(operator: Operator): string {
    const quoted = this.#quoted(operator === '~=' ? '"/|' : '"');
    // A bare value ends at a comma or a space, and begins with nothing that means something else.
    return quoted ?? this.#take(/[^\s,.=!~"/|\p{Cc}][^\s,\p{Cc}]*/uy) ?? this.#fail('a value');
  }

  /** A literal in any of the quotes, with the escapes of Go's strings. */
  #quoted(quotes: string): string | undefined {
    const opening = this.#take(/["/|]/y);
    if (opening === undefined) return undefined;
    if (!quotes.includes(opening)) this.#fail('another quote');
    const bytes: Buffer[] = [];
    while (this.#text[this.#at] !== opening) {
      if (this.#at >= this.#text.length || this.#text[this.#at] === '\n') this.#fail(`a closing ${opening}`);
      const plain = this.#match(/[^\\\n"/|]+|["/|]/uy);
      bytes.push(plain === undefined ? this.#escape(opening) : Buffer.from(plain));
    }
    this.#at += 1;
    try {
      return new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(Buffer.concat(bytes));
    } catch {
      return this.#fail('UTF-8 before it');
    }
  }

  #escape(opening: string): Buffer {
    const escape = this.#match(
      /\\(?:[0-3][0-7]{2}|x[\da-fA-F]{2}|u[\da-fA-F]{4}|U[\da-fA-F]{8}|[abfnrtv\\"/|])/y,
    );
    const letter = escape?.[1];
    if (escape === undefined || letter === undefined) return this.#fail('a known escape');
    const digits = escape.slice(2);
    if (/[0-7]/.test(letter)) return Buffer.of(parseInt(escape.slice(1), 8));
    if (letter === 'x') return Buffer.of(parseInt(digits, 16));
    if (letter === 'u' || letter === 'U') {
      const point = parseInt(digits, 16);
      if (point > 0x10_ff_ff || (point >= 0xd8_00 && point <= 0xdf_ff)) this.#fail('a character before it');
      return Buffer.from(String.fromCodePoint(point));
    }
    if (letter === opening) return Buffer.from(letter);
    const byte = escapes[letter];
    return byte === undefined ? this.#fail(`no escaped ${letter} before it`) : Buffer.of(byte);
  }

  #end(): boolean {
    this.#match(/\s+/y);
    return this.#at >= this.#text.length;
  }

  #peek(pattern: RegExp): boolean {
    const at = this.#at;
    const found = this.#take(pattern) !== undefined;
    this.#at = at;
    return found;
  }

  /** Takes what matches here, spaces before it skipped. */
  #take(pattern: RegExp): string | undefined {
    this.#match(/\s+/y);
    return this.#match(pattern);
  }

  #match(pattern: RegExp): string | undefined {
    pattern.lastIndex = this.#at;
    const found = pattern.exec(this.#text)?.[0];
    this.#at += found?.length ?? 0;
    return found;
  }

  #fail(expected: string): never {
    throw new SnapshotError(
      'INVALID_ARGUMENT',
      `filter ${quote(this.#text)} does not parse: expected ${expected} at character ${this.#at + 1}`,
      { hint: 'for example: kind==committed,labels."a.b"==c' },
    );
  }
}

/**
 * Compiles a pattern in RE2's syntax into a test for whether it matches anywhere in a value, in time linear in it.
 *
 * @throws {SnapshotError} INVALID_ARGUMENT if it does not compile, or into something very large
 */
export function compilePattern(pattern: string): (value: string) => boolean {
  const refuse = (why: string, cause?: unknown): never => {
    throw new SnapshotError('INVALID_ARGUMENT', `pattern ${quote(pattern)} ${why}`, { cause });
  };
  if (Buffer.byteLength(pattern) > MAX_PATTERN_BYTES) refuse(`has more than ${MAX_PATTERN_BYTES} bytes`);
  // Counted repetitions multiply where they are nested, and are unrolled.
  const repeats = [...pattern.matchAll(/\{(\d+)(?:,(\d*))?\}/g)].map(([, least, most]) =>
    Number(most || least),
  );
  if (repeats.reduce((product, count) => product * Math.max(count, 1), 1) > MAX_PATTERN_REPEATS) {
    refuse(`repeats things more than ${MAX_PATTERN_REPEATS} times`);
  }
  try {
    const compiled = RE2JS.compile(pattern);
    return (value) => compiled.test(value);
  } catch (error) {
    return refuse(`does not compile: ${error instanceof Error ? error.message : String(error)}`, error);
  }
}
