import { fork } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { SnapshotError, type ErrorCode } from '../errors.ts';
import { guarded } from '../guarded.ts';
import { workerProgram } from './worker-program.ts';

/** Work that runs in a process of its own: its name, and the types of its input, events and result. */
export interface Task<Input, Event, Result> {
  readonly name: string;
  /** Carries the types; it has no value. */
  readonly types?: { readonly input: Input; readonly event: Event; readonly result: Result };
}

/** Declares a task. The program of the child processes, `worker.ts`, maps it to the function that does the work. */
export function defineTask<Input, Event, Result>(name: string): Task<Input, Event, Result> {
  return { name };
}

/** A message from a child process. */
export type ChildMessage =
  | { readonly type: 'event'; readonly event: unknown }
  | { readonly type: 'result'; readonly result: unknown }
  | {
      readonly type: 'error';
      readonly code: ErrorCode;
      readonly message: string;
      readonly hint: string | undefined;
    };

/** The message that starts the work of a child process. */
export interface ChildRequest {
  readonly task: string;
  readonly input: unknown;
  /** The path of a directory that it may create; it is removed when the process ends, however it ends. */
  readonly scratch: string;
}

/** What a task is given in addition to its input. */
export interface TaskContext<Event = never> {
  /** Sends an event to the parent process. */
  readonly emit: (event: Event) => void;
  /** Creates a scratch directory, removed when the task ends. @returns its path */
  readonly scratch: () => string;
}

/** Cancellation and events of a task. */
interface RunOptions<Event> {
  readonly signal?: AbortSignal | undefined;
  /** Called for each event that the task emits. An error that it throws ends the task and rejects the promise. */
  readonly onEvent?: (event: Event) => void;
}

/**
 * Runs a task in a process of its own. There it does not block the event loop of this process, a crash ends only the
 * child, and closing a database file does not drop the locks of this process.
 *
 * @throws the error of the task, if that is a `SnapshotError`
 * @throws {SnapshotError} INTERNAL if the process ends without a result
 * @throws the signal's reason; the process is killed
 */
export async function runInChild<Input, Event, Result>(
  task: Task<Input, Event, Result>,
  input: Input,
  { signal, onEvent }: RunOptions<Event> = {},
): Promise<Result> {
  signal?.throwIfAborted();
  const scratch = join(tmpdir(), `overlite-${task.name}-${randomUUID()}`);
  return new Promise((resolve, reject) => {
    const child = fork(workerProgram, [], {
      execArgv: [],
      serialization: 'advanced',
      stdio: ['ignore', 'ignore', 'pipe', 'ipc'],
    });
    let outcome: (() => void) | undefined;
    let errorText = '';
    const killWith = (error: unknown): void => {
      outcome = () => reject(error);
      child.kill('SIGKILL');
    };
    const kill = (): void => killWith(signal?.reason instanceof Error ? signal.reason : new Error('aborted'));
    const onAbort = guarded(kill, reject);
    signal?.addEventListener('abort', onAbort, { once: true });
    const read = (data: Buffer): void => {
      errorText = `${errorText}${data.toString()}`.slice(-2000);
    };
    child.stderr?.on('data', guarded(read)).on('error', () => {});
    const receive = (message: ChildMessage): void => {
      // At the other end, `worker.ts` runs the function of this task, so the types are right.
      if (message.type === 'event') onEvent?.(message.event as Event);
      else if (message.type === 'result') outcome ??= () => resolve(message.result as Result);
      else {
        const { code, message: text, hint } = message;
        outcome ??= () => reject(new SnapshotError(code, text, hint === undefined ? {} : { hint }));
      }
    };
    const fail = (error: Error): void => {
      outcome ??= () =>
        reject(new SnapshotError('INTERNAL', 'a process cannot be started', { cause: error }));
      if (child.pid === undefined) outcome();
    };
    const end = (status: number | null, killedBy: NodeJS.Signals | null): void => {
      signal?.removeEventListener('abort', onAbort);
      removeScratch(scratch);
      const how = killedBy === null ? `with status ${status}` : `by ${killedBy}`;
      const details = errorText.trim() === '' ? '' : `: ${errorText.trim()}`;
      (outcome ?? (() => reject(new SnapshotError('INTERNAL', `the process ended ${how}${details}`))))();
    };
    child.on('message', guarded(receive, killWith));
    child.on('error', guarded(fail, reject));
    child.on('close', guarded(end, reject));
    // Without a process, there is only the event that says why.
    if (child.pid !== undefined) child.send({ task: task.name, input, scratch } satisfies ChildRequest);
  });
}

/** What cannot be removed is left to whoever clears the directory of temporary files. */
function removeScratch(scratch: string): void {
  try {
    rmSync(scratch, { recursive: true, force: true });
  } catch {
    // The path may even be one that cannot exist.
  }
}
