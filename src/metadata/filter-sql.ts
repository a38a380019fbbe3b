import { type Selector, compilePattern } from './filter.ts';

/** A condition as SQL over the table `snapshot`, with the values it binds in their order. */
export interface Condition {
  readonly sql: string;
  readonly values: readonly string[];
}

const compiled = new Map<string, (value: string) => boolean>();

/** The test for a pattern, which is compiled once as long as it is in use. */
function patternTest(pattern: string): (value: string) => boolean {
  let test = compiled.get(pattern);
  if (test === undefined) {
    test = compilePattern(pattern);
    if (compiled.size >= 100) compiled.clear();
    compiled.set(pattern, test);
  }
  return test;
}

/** Thrown when the time limit of matching is reached. */
const timeOver = new Error('the time limit of matching was reached');

let matchUntil = Infinity;

/** Runs a query that may match patterns for so many milliseconds. @returns `undefined` if that was not enough */
export function withinMatchTime<T>(milliseconds: number, query: () => T): T | undefined {
  matchUntil = performance.now() + milliseconds;
  try {
    return query();
  } catch (error) {
    if (error === timeOver) return undefined;
    throw error;
  } finally {
    matchUntil = Infinity;
  }
}

/**
 * The SQL function `overlite_matches(pattern, value)`: in linear time, so that no pattern can hang the service.
 *
 * @throws if the time limit of matching is reached
 */
export function matchesPattern(pattern: unknown, value: unknown): number {
  if (performance.now() > matchUntil) throw timeOver;
  return Number(patternTest(String(pattern))(String(value)));
}

const parentName = `coalesce((select name from snapshot as up where up.id = snapshot.parent_id), '')`;
const idOfName = `(select id from snapshot as named where named.name = ?)`;
const labelValue = `(select value from label where snapshot_id = snapshot.id and key = ?)`;
const everything: Condition = { sql: 'true', values: [] };
const nothing: Condition = { sql: 'false', values: [] };

/** The condition that a selector sets on a snapshot. As in containerd, an absent value compares like an empty one. */
export function toCondition(selector: Selector): Condition {
  const { operator, value } = selector;
  // Compiled here as well as in SQL, so that a bad pattern is found before anything is read.
  if (operator === '~=') patternTest(value);
  switch (selector.field) {
    case 'name':
    case 'kind':
      return toColumnCondition(`snapshot.${selector.field}`, operator, value);
    case 'parent':
      if (operator === 'present') return everything;
      if (operator === '~=') return { sql: `overlite_matches(?, ${parentName})`, values: [value] };
      if (value === '')
        return { sql: `snapshot.parent_id is ${operator === '==' ? '' : 'not '}null`, values: [] };
      return operator === '=='
        ? { sql: `snapshot.parent_id = ${idOfName}`, values: [value] }
        : { sql: `snapshot.parent_id is not coalesce(${idOfName}, 0)`, values: [value] };
    case 'label': {
      const { label } = selector;
      if (operator === '~=')
        return { sql: `overlite_matches(?, coalesce(${labelValue}, ''))`, values: [value, label] };
      if (operator === '==')
        return value === '' ? nothing : { sql: `${labelValue} = ?`, values: [label, value] };
      if (operator === '!=' && value !== '') return { sql: `${labelValue} is not ?`, values: [label, value] };
      return { sql: `${labelValue} is not null`, values: [label] };
    }
  }
}

function toColumnCondition(column: string, operator: Selector['operator'], value: string): Condition {
  switch (operator) {
    case 'present':
      return everything;
    case '==':
      return { sql: `${column} = ?`, values: [value] };
    case '!=':
      return { sql: `${column} <> ?`, values: [value] };
    case '~=':
      return { sql: `overlite_matches(?, ${column})`, values: [value] };
  }
}

/**
 * The ids that an index gives for a selector, a query that yields all it takes and perhaps some more; or
 * `undefined` where no index narrows it down.
 */
export function toIndexQuery(selector: Selector): Condition | undefined {
  const { operator, value } = selector;
  switch (selector.field) {
    case 'name': {
      if (operator === '==') return { sql: 'select id from snapshot where name = ?', values: [value] };
      const prefix = operator === '~=' ? literalPrefix(value) : '';
      if (prefix === '') return undefined;
      return {
        sql: 'select id from snapshot where name >= ? and name < ?',
        values: [prefix, after(prefix)],
      };
    }
    case 'parent':
      return operator === '==' && value !== ''
        ? { sql: `select id from snapshot where parent_id = ${idOfName}`, values: [value] }
        : undefined;
    case 'label': {
      const { label } = selector;
      if (operator === '==') {
        return { sql: 'select snapshot_id from label where key = ? and value = ?', values: [label, value] };
      }
      const takesAbsent = operator === '~=' ? patternTest(value)('') : operator === '!=' && value !== '';
      return takesAbsent
        ? undefined
        : { sql: 'select snapshot_id from label where key = ?', values: [label] };
    }
    case 'kind':
      return undefined;
  }
}

/** The first text in SQLite's order that comes after all that begin with a prefix of plain characters. */
function after(prefix: string): string {
  return prefix.slice(0, -1) + String.fromCharCode(prefix.charCodeAt(prefix.length - 1) + 1);
}

/** What everything that a pattern matches begins with, as far as that is plain to see. */
function literalPrefix(pattern: string): string {
  if (pattern.includes('|')) return '';
  const [, literal = '', next = ''] = /^\^([\w/:@-]+)(.?)/s.exec(pattern) ?? [];
  // A quantifier belongs to the last character, which may then be missing.
  return /[*?{]/.test(next) ? literal.slice(0, -1) : literal;
}
