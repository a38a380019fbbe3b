import { SnapshotError } from './errors.ts';
import { quote } from './quote.ts';
import type { Labels } from './snapshot.ts';

/** The most bytes of UTF-8 that a key or name holds, and a label's key and value together. */
const MAX_BYTES = 4096;

/** Says what kind of thing a value is, for a `TypeError`. */
export function kindOf(value: unknown): string {
  if (value === null) return 'null';
  return Array.isArray(value) ? 'an array' : typeof value;
}

/** Checks that `value` is text that SQLite and gRPC carry unchanged. */
function checkText(value: unknown, what: string): asserts value is string {
  if (typeof value !== 'string') throw new TypeError(`${what} must be a string, not ${kindOf(value)}`);
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

/** Checks a parent: none, given as nothing, `null` or an empty string, is `null`. @throws as `checkName` */
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
    throw new TypeError(`labels must be an object of strings, not ${kindOf(value)}`);
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

/** Checks an options object, given by a JavaScript caller. @throws {TypeError} if it is something else */
export function checkOptions<T extends object>(
  value: T | undefined,
  known: readonly (keyof T & string)[],
): Partial<T> {
  if (value === undefined) return {};
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    throw new TypeError(`options must be an object, not ${kindOf(value)}`);
  }
  for (const name of Object.keys(value)) {
    if (!known.some((option) => option === name)) throw new TypeError(`there is no option ${quote(name)}`);
  }
  return value;
}

/** @throws {TypeError} if what is to be told of something that takes long is of a wrong type */
export function checkWatched({
  signal,
  onProgress,
}: {
  readonly signal?: unknown;
  readonly onProgress?: unknown;
}): void {
  if (signal !== undefined && !(signal instanceof AbortSignal)) {
    throw new TypeError(`signal must be an AbortSignal, not ${kindOf(signal)}`);
  }
  if (onProgress !== undefined && typeof onProgress !== 'function') {
    throw new TypeError(`onProgress must be a function, not ${kindOf(onProgress)}`);
  }
}

/** Whether a function that must not be asynchronous was. */
export function isThenable(value: unknown): boolean {
  return typeof value === 'object' && value !== null && typeof Reflect.get(value, 'then') === 'function';
}

/** The label keys that field paths name, or all. */
export function labelKeys(fieldpaths: readonly string[]): 'all' | string[] {
  if (!Array.isArray(fieldpaths))
    throw new TypeError(`field paths must be an array, not ${kindOf(fieldpaths)}`);
  const keys = fieldpaths.map((path: unknown) => {
    if (typeof path !== 'string') throw new TypeError(`a field path must be a string, not ${kindOf(path)}`);
    if (path === 'labels') return null;
    if (path.startsWith('labels.') && path.length > 'labels.'.length) return path.slice('labels.'.length);
    throw new SnapshotError('INVALID_ARGUMENT', `field path ${quote(path)} is not of labels`, {
      hint: 'only labels can be changed: use labels, or labels.KEY',
    });
  });
  const named = keys.filter((key) => key !== null);
  return named.length === 0 || named.length < keys.length ? 'all' : named;
}
