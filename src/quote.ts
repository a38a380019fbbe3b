import { isUtf8 } from 'node:buffer';

/*
 * What others wrote, such as a name, a label, the path of a file or the point of a mount, can hold characters that
 * control a terminal or cannot be seen. Before it reaches a terminal or a log, it goes through one of these functions.
 */

/**
 * What is never shown as it is: control characters (C0, DEL, C1), marks that change the direction of text, characters
 * without a glyph of their own, unassigned ones, those for private use, lone surrogates, and separators of lines.
 */
const HIDDEN = /[\p{C}\p{Zl}\p{Zp}]/u;

const EVERY_HIDDEN = new RegExp(HIDDEN, 'gu');

/** Whether text holds a control character or one that cannot be seen. */
export function hasHidden(text: string): boolean {
  return HIDDEN.test(text);
}

/** Replaces each character that is not shown as it is. */
export function replaceHidden(text: string, replace: (hidden: string) => string): string {
  return HIDDEN.test(text) ? text.replaceAll(EVERY_HIDDEN, replace) : text;
}

/** A character as JSON escapes it: `\n`, `\u001b`. */
function escape(hidden: string): string {
  const short = JSON.stringify(hidden).slice(1, -1);
  if (/^\\./.test(short)) return short;
  return hidden.replaceAll(/[^]/g, (unit) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, '0')}`);
}

/**
 * Text with each hidden character as JSON escapes it, on one line. It is for text that holds names without quotes, such
 * as the messages of the operating system.
 */
export function escapeHidden(text: string): string {
  return replaceHidden(text, escape);
}

/** The same for text of several lines, which stay lines. */
export function escapeLines(text: string): string {
  return replaceHidden(text, (hidden) => (hidden === '\n' ? hidden : escape(hidden)));
}

/** A value as JSON in which every hidden character is escaped. It is the same value for a program that reads it. */
export function jsonText(value: unknown, indent?: number): string {
  return escapeLines(JSON.stringify(value, null, indent));
}

/** Quotes text as JSON and escapes every hidden character. */
export function quoteWhole(text: string): string {
  return jsonText(text);
}

/** Quotes an identifier for a message, and shortens a long one. */
export function quote(identifier: string): string {
  return quoteWhole(identifier.length > 120 ? `${identifier.slice(0, 117)}...` : identifier);
}

/** Quotes a file name. Bytes of it that are not UTF-8 are shown as `\xff`. */
export function quoteBytes(name: Buffer): string {
  const text = name.toString();
  if (!text.includes('\uFFFD') || Buffer.from(text).equals(name)) return quoteWhole(text);
  let quoted = '';
  for (let at = 0; at < name.length;) {
    const length = lengthOfCharacter(name, at);
    quoted +=
      length === 0
        ? `\\x${name.subarray(at, at + 1).toString('hex')}`
        : quoteWhole(name.toString('utf8', at, at + length)).slice(1, -1);
    at += Math.max(length, 1);
  }
  return `"${quoted}"`;
}

/** How many bytes the character has that begins at a byte; 0 if none does. */
function lengthOfCharacter(bytes: Buffer, at: number): number {
  for (let length = 1; length <= 4 && at + length <= bytes.length; length += 1) {
    if (isUtf8(bytes.subarray(at, at + length))) return length;
  }
  return 0;
}
