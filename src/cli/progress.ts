import { SingleBar } from 'cli-progress';
import type { Tally } from '../snapshot.ts';

/** What a bar shows. */
export interface BarState {
  /** What is being done. */
  readonly doing: string;
  readonly done: number;
  /** How much there is to do; `null` if that is not known. */
  readonly total: number | null;
  readonly detail?: string;
  /** How an amount is written (default: as a plain number). */
  readonly unit?: (amount: number) => string;
}

/** A bar on standard error, if that is a terminal; otherwise nothing. */
export class ProgressBar implements Disposable {
  readonly #bar = new SingleBar({
    format: '{doing} {bar} {amount} {detail}',
    stream: process.stderr,
    barsize: 24,
    barCompleteChar: '━',
    barIncompleteChar: '─',
    clearOnComplete: true,
    // A process that is killed would leave it hidden.
    hideCursor: false,
    linewrap: true,
    gracefulExit: false,
  });
  #started = false;

  /** Whether anybody sees it. */
  readonly visible = process.stderr.isTTY && process.env['TERM'] !== 'dumb';

  show({ doing, done, total, detail = '', unit = String }: BarState): void {
    if (!this.visible) return;
    const most = Math.max(total ?? 0, done, 1);
    const payload = { doing, detail, amount: `${unit(done)}${total === null ? '' : ` of ${unit(most)}`}` };
    if (!this.#started) this.#bar.start(most, done, payload);
    this.#started = true;
    this.#bar.setTotal(most);
    this.#bar.update(done, payload);
  }

  [Symbol.dispose](): void {
    if (this.#started) this.#bar.stop();
    this.#started = false;
  }
}

/** Shows a bar while an operation runs that reports its progress. */
export async function withBar<T>(
  run: (onProgress: (tally: Tally) => void) => Promise<T>,
  of: Pick<BarState, 'doing' | 'unit'>,
): Promise<T> {
  using bar = new ProgressBar();
  return await run(({ done, total }) => bar.show({ ...of, done, total }));
}
