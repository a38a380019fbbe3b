import { type ChildProcess, fork } from 'node:child_process';
import type { CheckOptions, Report } from '../../src/index.ts';
import { bundled } from './bundled.ts';

/** Checks stores as `checkStore` does, one at a time, but in one process for all of them: starting it takes longer. */
export class Examiner {
  #child: ChildProcess | undefined;

  /** @throws {Error} if the check fails, does not end in ten minutes, or takes its process down */
  check(root: string, settings: CheckOptions = {}): Promise<Report> {
    this.#child ??= fork(bundled('examine.mjs'), { serialization: 'advanced' });
    const child = this.#child;
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => child.kill('SIGKILL'), 600_000);
      const onExit = (status: number | null, signal: string | null): void => {
        clearTimeout(timer);
        this.#child = undefined;
        reject(new Error(`its process ended with ${status ?? signal}`));
      };
      child.once('exit', onExit);
      child.once('message', ({ report, error }: { report?: Report; error?: string }) => {
        clearTimeout(timer);
        child.off('exit', onExit);
        if (report === undefined) reject(new Error(error));
        else resolve(report);
      });
      child.send({ root, settings });
    });
  }

  end(): void {
    this.#child?.kill('SIGKILL');
  }
}
