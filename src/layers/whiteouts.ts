import { SnapshotError } from '../errors.ts';
import { isWhiteout } from '../linux/file-status.ts';
import type { TreeEntry } from '../linux/tree-walk.ts';
import { quote, quoteBytes } from '../quote.ts';

/**
 * Looks for whiteouts in a base: character devices 0/0. They are files in a base that is mounted by itself, and in an
 * overlay they hide themselves. So a base must not hold any.
 */
export class Whiteouts {
  #count = 0;
  #first: Buffer | undefined;

  /** Looks at a file of the base. */
  readonly look = ({ status, path }: TreeEntry): void => {
    if (!isWhiteout(status)) return;
    this.#first ??= Buffer.from(path);
    this.#count += 1;
  };

  /** The path of the first whiteout, and how many follow; `undefined` if the base has no whiteouts. */
  get found(): string | undefined {
    if (this.#first === undefined) return undefined;
    const path = quoteBytes(Buffer.concat([Buffer.from('/'), this.#first]));
    return this.#count === 1 ? path : `${path} and ${this.#count - 1} more`;
  }

  /** Refuses to commit a base with whiteouts. @throws {SnapshotError} FAILED_PRECONDITION */
  refuse(key: string): void {
    if (this.found === undefined) return;
    throw new SnapshotError(
      'FAILED_PRECONDITION',
      `${quote(key)} holds character devices 0/0, which are whiteouts below a workspace: ${this.found}`,
      { hint: 'remove them: a base has nothing to hide, and they would be seen in it but not above it' },
    );
  }
}
