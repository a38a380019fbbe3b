import { resolve } from 'node:path';
import { SnapshotError, wrongType } from './errors.ts';
import { quote } from './quote.ts';
import type { Labels, Watched } from './snapshot.ts';

/** The most bytes of UTF-8 that a key or name holds, and a label's key and value together. */
const MAX_BYTES = 4096;

/** Says what kind of thing a value is, for a `TypeError`. */
export function kindOf(value: unknown): string {
  if (value === null) return 'null';
  return Array.isArray(value) ? 'an array' : typeof value;
}

/** Checks that `value` is text that SQLite and gRPC carry unchanged. */
function checkText(value: unknown, what: string): asserts value is string {
  if (typeof value !== 'string') throw wrongType(`${what} must be a string, not ${kindOf(value)}`);
  if (value.includes('\0'))
    throw new SnapshotError('INVALID_ARGUMENT', `${what} ${quote(value)} holds a NUL`);
  if (!value.isWellFormed()) {
    throw new SnapshotError('INVALID_ARGUMENT', `${what} ${quote(value)} holds a lone surrogate`);
  }
}

/**
 * Checks a key or name.
 *
 * @throws {TypeError} if it is not a string
 * @throws {SnapshotError} INVALID_ARGUMENT if it is empty, too long, or holds NUL or a lone surrogate
 */
export function checkName(value: unknown, word: 'key' | 'name' | 'parent' | 'key or name'): string {
  checkText(value, word);
  if (value === '') throw new SnapshotError('INVALID_ARGUMENT', `the ${word} is empty`);
  const bytes = Buffer.byteLength(value);
  if (bytes > MAX_BYTES) {
    throw new SnapshotError(
      'INVALID_ARGUMENT',
      `the ${word} ${quote(value)} has ${bytes} bytes, more than ${MAX_BYTES}`,
    );
  }
  return value;
}

/** Checks a parent. `undefined`, `null` and an empty string mean none, and give `null`. @throws as `checkName` */
export function checkParent(value: unknown): string | null {
  return value === undefined || value === null || value === '' ? null : checkName(value, 'parent');
}

/**
 * Checks labels and leaves out those with an empty value, which stand for no label.
 *
 * @throws {TypeError} if they are not an object of strings
 * @throws {SnapshotError} INVALID_ARGUMENT if one is empty, too long, or holds NUL or a lone surrogate
 */
export function checkLabels(value: unknown): Labels {
  if (value === undefined) return {};
  if (typeof value !== 'object' || value === null || Array.isArray(value) || value instanceof Map) {
    throw wrongType(`labels must be an object of strings, not ${kindOf(value)}`);
  }
  const labels: [string, string][] = [];
  for (const [key, text] of Object.entries(value)) {
    checkText(key, 'label');
    checkText(text, `the value of label ${quote(key)}`);
    if (key === '') throw new SnapshotError('INVALID_ARGUMENT', 'the key of a label is empty');
    const bytes = Buffer.byteLength(key) + Buffer.byteLength(text);
    if (bytes > MAX_BYTES) {
      throw new SnapshotError(
        'INVALID_ARGUMENT',
        `label ${quote(key)} has ${bytes} bytes with its value, more than ${MAX_BYTES}`,
      );
    }
    if (text !== '') labels.push([key, text]);
  }
  return Object.fromEntries(labels);
}

/** Checks the value of an option, which errors name, and gives the value to use. It gets `undefined` if it was left out. */
export type OptionCheck<T> = (value: unknown, option: string) => T;

/**
 * Checks an options object that a JavaScript caller may have given, by the checks of all options that there are.
 *
 * @returns what the checks gave
 * @throws {TypeError} if it is not an object, or has an option that there is no check for
 * @throws what the checks throw
 */
export function checkOptions<T extends object>(
  given: unknown,
  checks: { readonly [K in keyof T]: OptionCheck<T[K]> },
): T {
  if (given !== undefined && (typeof given !== 'object' || given === null || Array.isArray(given))) {
    throw wrongType(`options must be an object, not ${kindOf(given)}`);
  }
  for (const name of Object.keys(given ?? {})) {
    if (!Object.hasOwn(checks, name)) throw wrongType(`there is no option ${quote(name)}`);
  }
  const values: Readonly<Record<string, unknown>> = { ...given };
  const entries = Object.entries<OptionCheck<unknown>>(checks);
  return Object.fromEntries(entries.map(([name, check]) => [name, check(values[name], name)])) as T;
}

/** An option that may be left out, and is `undefined` then. */
export function optional<T>(check: OptionCheck<T>): OptionCheck<T | undefined> {
  return (value, option) => (value === undefined ? undefined : check(value, option));
}

/** An option that has another value if it is left out. */
export function withDefault<T>(check: OptionCheck<T>, fallback: T): OptionCheck<T> {
  return (value, option) => (value === undefined ? fallback : check(value, option));
}

export function boolean(value: unknown, option: string): boolean {
  if (typeof value !== 'boolean') throw wrongType(`${option} must be a boolean, not ${kindOf(value)}`);
  return value;
}

export function string(value: unknown, option: string): string {
  if (typeof value !== 'string') throw wrongType(`${option} must be a string, not ${kindOf(value)}`);
  return value;
}

/** A list of strings; each is checked by `item`, if it is given. */
export function strings(
  item: OptionCheck<string> = (value, option) => {
    if (typeof value !== 'string') throw wrongType(`${option} must be an array of strings`);
    return value;
  },
): OptionCheck<string[]> {
  return (value, option) => {
    if (!Array.isArray(value)) throw wrongType(`${option} must be an array, not ${kindOf(value)}`);
    return value.map((one: unknown) => item(one, option));
  };
}

/** One of several words. */
export function oneOf<T extends string>(...words: readonly T[]): OptionCheck<T> {
  return (value, option) => {
    const text = string(value, option);
    const word = words.find((known) => known === text);
    if (word !== undefined) return word;
    const known = words.map((one) => `"${one}"`).join(' or ');
    throw new SnapshotError('INVALID_ARGUMENT', `${option} is ${known}, not ${quote(text)}`);
  };
}

/** A time in milliseconds, of at most `most`. */
export function milliseconds(most: number): OptionCheck<number> {
  return (value, option) => {
    if (typeof value !== 'number') throw wrongType(`${option} must be a number, not ${kindOf(value)}`);
    if (value >= 0 && value <= most) return value;
    throw new SnapshotError('INVALID_ARGUMENT', `${option} is not a number of milliseconds: ${value}`);
  };
}

/** A function. Its parameters cannot be checked: they are those that the caller's type says. */
export function callback<T extends (...args: never[]) => unknown>(): OptionCheck<T> {
  return (value, option) => {
    if (typeof value !== 'function') throw wrongType(`${option} must be a function, not ${kindOf(value)}`);
    return value as T;
  };
}

export function abortSignal(value: unknown, option: string): AbortSignal {
  if (value instanceof AbortSignal) return value;
  throw wrongType(`${option} must be an AbortSignal, not ${kindOf(value)}`);
}

/** Options after their check: each is there, if only as `undefined`. */
export type Checked<T> = { readonly [K in keyof T]-?: T[K] | undefined };

/** The options of a call that can be cancelled. */
export const waitingOptions = { signal: optional(abortSignal) };

/** The options of a long call, which can be cancelled and reports its progress, in steps of a type. */
// oxlint-disable-next-line typescript/no-unnecessary-type-parameters -- Only the caller knows the type of the steps.
export function watchedOptions<Step>(): {
  readonly [K in keyof Watched<Step>]-?: OptionCheck<Watched<Step>[K] | undefined>;
} {
  return { ...waitingOptions, onProgress: optional(callback<(progress: Step) => void>()) };
}

/** Whether a function that must not be asynchronous was. */
export function isThenable(value: unknown): boolean {
  return typeof value === 'object' && value !== null && typeof Reflect.get(value, 'then') === 'function';
}

/** The label keys that field paths name, or all. */
export function toLabelKeys(fieldpaths: unknown): 'all' | string[] {
  if (!Array.isArray(fieldpaths)) throw wrongType(`field paths must be an array, not ${kindOf(fieldpaths)}`);
  const keys = fieldpaths.map((path: unknown) => {
    if (typeof path !== 'string') throw wrongType(`a field path must be a string, not ${kindOf(path)}`);
    if (path === 'labels') return null;
    if (path.startsWith('labels.') && path.length > 'labels.'.length) return path.slice('labels.'.length);
    throw new SnapshotError('INVALID_ARGUMENT', `field path ${quote(path)} is not of labels`, {
      hint: 'only labels can be changed: use labels, or labels.KEY',
    });
  });
  const named = keys.filter((key) => key !== null);
  return named.length === 0 || named.length < keys.length ? 'all' : named;
}

/**
 * The absolute path of the root of a store.
 *
 * @throws {TypeError} if it is not a string
 * @throws {SnapshotError} INVALID_ARGUMENT if it is empty or holds a NUL
 */
export function toRoot(path: unknown): string {
  if (typeof path !== 'string') throw wrongType(`the root must be a string, not ${kindOf(path)}`);
  if (path === '' || path.includes('\0')) {
    throw new SnapshotError('INVALID_ARGUMENT', `the root ${quote(path)} is not a path`);
  }
  return resolve(path);
}
