import type { ChildProcess } from 'node:child_process';

/** What a command ends with that was stopped by a signal. */
export class Stopped extends Error {
  override readonly name = 'Stopped';
  /** As shells have it: 128 and the number of the signal. */
  readonly status: number;

  constructor(signal: keyof typeof STATUS) {
    super(`stopped by ${signal}`);
    this.status = STATUS[signal];
  }
}

const STATUS = { SIGHUP: 129, SIGINT: 130, SIGTERM: 143 } as const;

const stopping = new AbortController();

/** Ends what can be undone, when a signal asks to. What cannot be undone is finished. */
export const stopSignal: AbortSignal = stopping.signal;

/** The command that is run on behalf of the user, and gets the signals. */
let running: ChildProcess | undefined;

/** Leaves signals to a process until it has ended. Those that a terminal sends have reached it already. */
export function handOver(child: ChildProcess): void {
  const ignore = (): void => {};
  const takeBack = (): void => {
    running = undefined;
    process.off('SIGQUIT', ignore);
  };
  running = child;
  process.on('SIGQUIT', ignore);
  child.once('exit', takeBack).once('error', takeBack);
}

/** Takes signals: the first ends things well, a second one at once. */
export function takeSignals(): void {
  for (const name of ['SIGHUP', 'SIGINT', 'SIGTERM'] as const) {
    process.on(name, () => {
      if (running !== undefined) {
        if (name !== 'SIGINT') running.kill(name);
        return;
      }
      if (stopSignal.aborted) process.exit(STATUS[name]);
      stopping.abort(new Stopped(name));
    });
  }
}

let isEnd = false;

/** Says that being stopped is how a command ends, and no reason for another status than 0. */
export function endWhenStopped(): void {
  isEnd = true;
}

/** The exit status of a command that was stopped, or had finished already when it was to stop. */
export function stoppedStatus(): number | undefined {
  const reason: unknown = stopSignal.reason;
  return reason instanceof Stopped && !isEnd ? reason.status : undefined;
}
