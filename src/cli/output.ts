import { styleText } from 'node:util';
import Table from 'cli-table3';
import { escapeHidden, hasHidden, jsonText, quoteBytes, quoteWhole, replaceHidden } from '../quote.ts';
import type { Info, Kind, Mount } from '../snapshot.ts';

/** The colours that `paint` gives, and the characters that lay out a text. */
// oxlint-disable-next-line no-control-regex -- Escape begins a colour.
const OWN = /(\u001B\[(?:[12]|22|3[1-9])m|[\n\t])/;

/**
 * Prints a line. What others wrote is to be quoted where it becomes part of the line (`shown`); what was forgotten there
 * cannot control a terminal either.
 */
export function say(line: string): void {
  // Every second part is one of our own.
  const parts = line.split(OWN).map((part, at) => (at % 2 === 1 ? part : escapeHidden(part)));
  process.stdout.write(`${parts.join('')}\n`);
}

/** Prints a value as JSON. */
export function sayJson(value: unknown): void {
  say(jsonText(value, 2));
}

/** Prints a line on standard error, for commands whose standard output belongs to another program. */
export function note(line: string): void {
  process.stderr.write(`overlite: ${escapeHidden(line)}\n`);
}

/** Prints a line of JSON on standard error. */
export function noteJson(value: unknown): void {
  process.stderr.write(`${jsonText(value)}\n`);
}

/** Prints an array of JSON, an element at a time. */
export async function sayJsonArray(values: AsyncIterable<unknown>): Promise<void> {
  let before = '[\n';
  for await (const value of values) {
    process.stdout.write(before + jsonText(value, 2).replace(/^/gm, '  '));
    before = ',\n';
  }
  say(before === '[\n' ? '[]' : '\n]');
}

type Style = Exclude<Parameters<typeof styleText>[0], readonly unknown[]>;

const colours =
  process.stdout.isTTY && (process.env['NO_COLOR'] ?? '') === '' && process.env['TERM'] !== 'dumb';

/** Text in a colour, if standard output is a terminal and the user does not object. */
export function paint(style: Style, text: string): string {
  return colours ? styleText(style, text) : text;
}

const KIND_STYLES: Readonly<Record<Kind, Style>> = { active: 'green', view: 'cyan', committed: 'yellow' };

/** A kind, in its colour. */
export function paintKind(kind: Kind): string {
  return paint(KIND_STYLES[kind], kind);
}

/**
 * A key, name or path for people: quoted if it is ambiguous or could control a terminal. Give a path as bytes where it
 * need not be UTF-8.
 */
export function shown(name: string | Buffer): string {
  const text = name.toString();
  if (/^[\p{L}\p{N}\p{P}\p{S}]+$/u.test(text) && !/["\\\uFFFD]/.test(text)) return text;
  return typeof name === 'string' ? quoteWhole(name) : quoteBytes(name);
}

/** Quotes an argument for a shell; with hidden characters in it for bash, zsh or ksh, by the numbers of its bytes. */
function quoted(argument: string): string {
  if (hasHidden(argument)) {
    const octal = (hidden: string): string =>
      [...Buffer.from(hidden)].map((byte) => `\\${byte.toString(8).padStart(3, '0')}`).join('');
    return `$'${replaceHidden(argument.replaceAll(/[\\']/g, '\\$&'), octal)}'`;
  }
  return /^[\w@%+=:,./-]+$/.test(argument) ? argument : `'${argument.replaceAll("'", `'\\''`)}'`;
}

/** The command line that mounts something. */
export function mountCommand({ type, source, options }: Mount, target: string): string {
  const words =
    type === 'bind'
      ? ['mount', '-o', ['bind', ...options].join(','), source, target]
      : ['mount', '-t', type, source, target, '-o', options.join(',')];
  return words.map(quoted).join(' ');
}

/** Prints a table. Columns whose head begins with `>` are aligned to the right. */
export function sayTable(heads: readonly string[], rows: readonly (readonly string[])[]): void {
  const none = Object.fromEntries(
    ['top', 'bottom', 'left', 'mid', 'right'].flatMap((side) =>
      ['', '-mid', '-left', '-right'].map((corner) => [`${side}${corner}`, '']),
    ),
  );
  const table = new Table({
    head: heads.map((head) => paint('bold', head.replace('>', ''))),
    colAligns: heads.map((head) => (head.startsWith('>') ? 'right' : 'left')),
    chars: { ...none, middle: '  ' },
    style: { head: [], border: [], 'padding-left': 0, 'padding-right': 0 },
  });
  for (const row of rows) table.push([...row]);
  for (const line of table.toString().split('\n')) say(line.trimEnd());
}

/** Prints pairs of a word and a text, one pair a line. */
export function sayPairs(pairs: readonly (readonly [string, string])[]): void {
  const width = Math.max(...pairs.map(([word]) => word.length)) + 2;
  for (const [word, text] of pairs) say(`${paint('bold', word.padEnd(width))}${text}`);
}

/** A snapshot as JSON shows it. */
export function toJson(info: Info): object {
  const { id, name, kind, parent, labels, created, updated, seal, inUse, volatile, directory } = info;
  return { name, kind, parent, created, updated, labels, id, directory, seal, inUse, volatile };
}
