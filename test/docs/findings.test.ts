import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import type { Description } from '../../src/check/description.ts';
import { DESCRIPTIONS, FINDINGS, STEPS } from '../../src/check/findings.ts';
import type { Step } from '../../src/index.ts';

const file = join(import.meta.dirname, '../../docs/check.md');
const EXPLANATION = 'what it means, and where it comes from';

type Row = readonly string[];

function cellsOf(line: string): Row {
  return line
    .slice(1, -1)
    .split(/(?<!\\)\|/)
    .map((cell) => cell.trim());
}

/** The explanations of a table, which are written by hand, by the codes of its rows. */
function explanationsOf(table: string): Map<string, string> {
  const rows = table.trim().split('\n').slice(2).map(cellsOf);
  return new Map(rows.map((row) => [row.at(0)?.replaceAll('`', '') ?? '', row.at(-1) ?? '']));
}

function repairOf({ repair }: Description): string {
  if (repair === undefined) return '';
  return repair.when === undefined ? repair.sentence : `(${repair.sentence})`;
}

/** The table of a step: what the descriptions say, and the explanations as they are. */
function tableOf(step: Step, explanations: ReadonlyMap<string, string>): Row[] {
  const descriptions = Object.entries<Description>(DESCRIPTIONS).filter(
    ([code]) => FINDINGS[code as keyof typeof FINDINGS].step === step,
  );
  const columns: { title: string; cell: (code: string, description: Description) => string }[] = [
    { title: 'code', cell: (code) => `\`${code}\`` },
    { title: 'severity', cell: (_, { severity }) => severity },
    { title: 'damages', cell: (_, { damagesLayer }) => (damagesLayer === true ? 'the layer' : '') },
    { title: 'repair', cell: (_, description) => repairOf(description) },
    { title: EXPLANATION, cell: (code) => explanations.get(code) ?? '' },
  ];
  const used = columns.filter(({ cell }) => descriptions.some(([code, known]) => cell(code, known) !== ''));
  return [
    used.map(({ title }) => title),
    ...descriptions.map(([code, known]) => used.map(({ cell }) => cell(code, known))),
  ];
}

/** Writes a table as the formatter does. */
function toMarkdown([head = [], ...rows]: Row[]): string {
  const widths = head.map((_, column) => Math.max(...[head, ...rows].map((row) => row[column]?.length ?? 0)));
  const line = (row: Row): string =>
    `| ${row.map((cell, column) => cell.padEnd(widths[column] ?? 0)).join(' | ')} |`;
  return [line(head), line(widths.map((width) => '-'.repeat(width))), ...rows.map(line), ''].join('\n');
}

/** The page with the tables as they should be. */
function generate(page: string): string {
  return STEPS.reduce(
    (text, step) =>
      text.replace(new RegExp(`(?<=^### ${step}\\n\\n)(?:\\|.*\\n)+`, 'm'), (table) =>
        toMarkdown(tableOf(step, explanationsOf(table))),
      ),
    page,
  );
}

test('docs/check.md describes every finding as the tables beside the steps do', () => {
  const page = readFileSync(file, 'utf8');
  const generated = generate(page);
  // With this set, the tables are written anew; explanations are written by hand.
  if (process.env['UPDATE_DOCS'] === '1') writeFileSync(file, generated);
  else expect(page).toBe(generated);
});

test('docs/check.md explains every finding in a sentence', () => {
  const page = readFileSync(file, 'utf8');
  const tables = [...page.matchAll(/^### \w+\n\n((?:\|.*\n)+)/gm)];
  const explanations = tables.flatMap(([, table = '']) => Array.from(explanationsOf(table)));
  expect(explanations.map(([code]) => code).toSorted()).toEqual(Object.keys(FINDINGS).toSorted());
  for (const [code, text] of explanations) expect(text, code).toMatch(/^[A-Z`].*[.?]$/);
});
