import { copyFileSync, mkdtempSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { removeSync } from 'fs-extra/esm';
import { runShell } from './shell.ts';

/** Statements that a client tries one after the other. None of them is expected to change anything. */
export interface Attempt {
  readonly statements: readonly string[];
  /** SQL that runs before, which is allowed. */
  readonly given?: string | undefined;
}

/** What came of an attempt. */
export interface Outcome {
  /** What there was before the first statement. */
  readonly before: string;
  /** For each statement the error that it ended with, and what there was after it. */
  readonly tried: readonly {
    readonly statement: string;
    readonly error: string | undefined;
    readonly after: string;
  }[];
  /** What a new connection finds in the end, foreign keys that are broken included, if something was given. */
  readonly left: string | undefined;
}

const MARK = '== next';

/**
 * Makes many attempts in one `sqlite3` shell, whose start takes longer than an attempt does. Those to which nothing is
 * given share a database, where each is in a savepoint that is rolled back; a statement `or rollback`, which takes a
 * savepoint with it, is in a transaction of its own.
 *
 * @param template the database of which each attempt begins with a copy
 * @param settings SQL that sets up the client
 * @param look a script that prints what there is
 * @returns what came of each attempt, and what a new connection finds in the shared database in the end
 * @throws {Error} if anything but a statement of an attempt ends with an error
 */
export function attackAll(
  template: string,
  settings: string,
  look: string,
  attempts: readonly Attempt[],
): { outcomes: Outcome[]; left: string } {
  const directory = mkdtempSync(join(tmpdir(), 'overlite-attack-'));
  try {
    const script = new Script(look);
    const copy = (name: string): string => {
      const file = join(directory, name);
      copyFileSync(template, file);
      return file;
    };
    const shared = copy('shared.db');
    script.open(shared, settings);
    const begun = attempts.map(({ statements, given }, number) => {
      if (given === undefined) {
        const endsAll = (statement: string): boolean => / or rollback /.test(statement);
        script.add('savepoint attack;');
        const before = script.look();
        const inside = statements.filter((statement) => !endsAll(statement)).map(script.attack);
        script.add('rollback to attack;\nrelease attack;');
        const alone = statements.filter(endsAll).map((statement) => {
          script.add('begin;');
          const tried = script.attack(statement);
          script.rollBack();
          return tried;
        });
        return { before, tried: [...inside, ...alone], left: undefined };
      }
      const file = copy(`${number}.db`);
      script.open(file, given);
      const before = script.look();
      script.open(file, settings);
      const tried = statements.map(script.attack);
      script.open(file, '');
      const left = script.look('pragma foreign_key_check;');
      script.open(shared, settings);
      return { before, tried, left };
    });
    script.open(shared, '');
    const leftInShared = script.look('pragma foreign_key_check;');

    const { looks, errors } = script.run(shared);
    const outcomes = begun.map(({ before, tried, left }) => ({
      before: looks[before] ?? '',
      tried: tried.map(({ statement, line, after }) => ({
        statement,
        error: errors.get(line),
        after: looks[after] ?? '',
      })),
      left: left === undefined ? undefined : (looks[left] ?? ''),
    }));
    return { outcomes, left: looks[leftInShared] ?? '' };
  } finally {
    removeSync(directory);
  }
}

/** A script for the shell that is written bit by bit, and then run. */
class Script {
  readonly #look: string;
  #text = '';
  #lines = 1;
  #looks = 0;
  /** The lines that may end with an error. */
  readonly #mayFail = new Set<number>();

  constructor(look: string) {
    this.#look = look;
  }

  add(text: string): void {
    this.#text += `${text}\n`;
    this.#lines += text.split('\n').length;
  }

  open(file: string, sql: string): void {
    this.add(`.open ${file}\npragma synchronous = off;\n${sql}`);
  }

  /** @returns the number of the look */
  look(more = ''): number {
    this.add(`${this.#look}\n${more}\n.print ${MARK}`);
    return this.#looks++;
  }

  /** Tries a statement, looks, and gives the line that it is on and the number of the look. */
  readonly attack = (statement: string): { statement: string; line: number; after: number } => {
    const line = this.#lines;
    this.#mayFail.add(line);
    this.add(`${statement};`);
    return { statement, line, after: this.look() };
  };

  /** Rolls the transaction back, if there is still one. */
  rollBack(): void {
    this.#mayFail.add(this.#lines);
    this.add('rollback;');
  }

  run(file: string): { looks: string[]; errors: Map<number, string> } {
    const { out, errors } = runShell(file, this.#text);
    const looks = out.split(`${MARK}\n`).slice(0, -1);
    const other = errors.find(({ line }) => !this.#mayFail.has(line));
    if (other !== undefined) throw new Error(`line ${other.line}: ${other.message}`);
    if (looks.length !== this.#looks)
      throw new Error(`the shell has shown ${looks.length} of ${this.#looks} looks`);
    return { looks, errors: new Map(errors.map(({ line, message }) => [line, message])) };
  }
}
