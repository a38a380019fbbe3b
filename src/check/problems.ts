import type { FindingCode } from '../report.ts';
import { type Facts, type Problem, problem } from './problem.ts';

/** The problems that a check has found, in the order in which it found them. */
export class Problems implements Iterable<Problem> {
  readonly #found: Problem[] = [];

  add<Code extends FindingCode>(code: Code, facts: Facts<Code>): void {
    this.#found.push(problem(code, facts));
  }

  addAll(problems: readonly Problem[]): void {
    this.#found.push(...problems);
  }

  has(code: FindingCode): boolean {
    return this.#found.some((found) => found.code === code);
  }

  [Symbol.iterator](): ArrayIterator<Problem> {
    return this.#found.values();
  }
}
