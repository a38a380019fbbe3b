import type { ChildProcess } from 'node:child_process';
import { guarded } from '../guarded.ts';

/** The error of a command that was stopped by a signal. */
export class Stopped extends Error {
  override readonly name = 'Stopped';
  /** As in shells: 128 and the number of the signal. */
  readonly status: number;

  constructor(signal: keyof typeof STATUS) {
    super(`stopped by ${signal}`);
    this.status = STATUS[signal];
  }
}

const STATUS = { SIGHUP: 129, SIGINT: 130, SIGTERM: 143 } as const;

const stopping = new AbortController();

/** Aborted by the first signal that asks this process to stop: what can be undone is, the rest is finished. */
export const stopSignal: AbortSignal = stopping.signal;

/** The command that runs on behalf of the user, and gets the signals. */
let running: ChildProcess | undefined;

/** Leaves signals to a process until it has ended: SIGTERM and SIGHUP are passed on, a terminal sends it SIGINT. */
export function handOver(child: ChildProcess): void {
  const ignore = (): void => {};
  const takeBack = guarded(() => {
    running = undefined;
    process.off('SIGQUIT', ignore);
  });
  running = child;
  process.on('SIGQUIT', ignore);
  // A Ctrl-C that ends the command can arrive after its end, in the same turn of the event loop.
  child.once('exit', () => setImmediate(takeBack)).once('error', takeBack);
}

function stop(name: keyof typeof STATUS): void {
  if (running !== undefined) {
    if (name !== 'SIGINT') running.kill(name);
    return;
  }
  if (stopSignal.aborted) process.exit(STATUS[name]);
  stopping.abort(new Stopped(name));
}

/** Handles signals: the first one stops the command in an orderly way, a second one at once. */
export function takeSignals(): void {
  for (const name of ['SIGHUP', 'SIGINT', 'SIGTERM'] as const) {
    process.on(
      name,
      guarded(() => stop(name)),
    );
  }
}

let isEnd = false;

/** Declares that a signal is the normal end of this command, with status 0. */
export function endWhenStopped(): void {
  isEnd = true;
}

/** The exit status of a command that was stopped, even if it had finished by then. */
export function stoppedStatus(): number | undefined {
  const reason: unknown = stopSignal.reason;
  return reason instanceof Stopped && !isEnd ? reason.status : undefined;
}
