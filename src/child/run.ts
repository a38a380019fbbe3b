import { fork } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { SnapshotError, type ErrorCode } from '../errors.ts';

/** The program that runs tasks in a process of their own. The built one, from wherever this is loaded. */
const program = fileURLToPath(new URL('../../dist/child/main.js', import.meta.url));

/** What a child process says. */
export type ChildMessage =
  | { readonly type: 'event'; readonly event: unknown }
  | { readonly type: 'result'; readonly result: unknown }
  | {
      readonly type: 'error';
      readonly code: ErrorCode;
      readonly message: string;
      readonly hint: string | undefined;
    };

/** What a child process is told. */
export interface ChildTask {
  readonly task: string;
  readonly input: unknown;
  /** A directory that it may make, for files that go with it however it ends. */
  readonly scratch: string;
}

/** What a task works with. */
export interface Workplace<Event = never> {
  readonly emit: (event: Event) => void;
  /** Makes a directory for files that are of no use afterwards. @returns its path */
  readonly scratch: () => string;
}

/** Who looks on while a child process works. */
interface Watch {
  readonly signal?: AbortSignal | undefined;
  readonly onEvent?: (event: unknown) => void;
}

/**
 * Runs a task in a process of its own, where it neither holds this one's event loop nor takes it along when it fails,
 * and where files of the database can be read without dropping this one's locks.
 *
 * @throws what the task throws, if that is a `SnapshotError`
 * @throws {SnapshotError} INTERNAL if the process ends without a result
 * @throws the signal's reason; the process is killed
 */
export function runInChild(task: string, input: unknown, { signal, onEvent }: Watch = {}): Promise<unknown> {
  signal?.throwIfAborted();
  const scratch = join(tmpdir(), `overlite-${task}-${randomUUID()}`);
  return new Promise((resolve, reject) => {
    const child = fork(program, [], {
      execArgv: [],
      serialization: 'advanced',
      stdio: ['ignore', 'ignore', 'pipe', 'ipc'],
    });
    let outcome: (() => void) | undefined;
    let complaint = '';
    const kill = (): void => {
      outcome = () => reject(signal?.reason instanceof Error ? signal.reason : new Error('aborted'));
      child.kill('SIGKILL');
    };
    signal?.addEventListener('abort', kill, { once: true });
    child.stderr?.on('data', (data: Buffer) => {
      complaint = `${complaint}${data.toString()}`.slice(-2000);
    });
    child.on('message', (message: ChildMessage) => {
      if (message.type === 'event') {
        try {
          onEvent?.(message.event);
        } catch (error) {
          // What a caller's own function throws ends the task, and goes to the caller.
          outcome = () => reject(error);
          child.kill('SIGKILL');
        }
      } else if (message.type === 'result') {
        outcome ??= () => resolve(message.result);
      } else {
        const { code, message: text, hint } = message;
        outcome ??= () => reject(new SnapshotError(code, text, hint === undefined ? {} : { hint }));
      }
    });
    child.on('error', (error) => {
      outcome ??= () =>
        reject(new SnapshotError('INTERNAL', 'a process cannot be started', { cause: error }));
      if (child.pid === undefined) outcome();
    });
    child.on('close', (status, killedBy) => {
      signal?.removeEventListener('abort', kill);
      rmSync(scratch, { recursive: true, force: true });
      const how = killedBy === null ? `with status ${status}` : `by ${killedBy}`;
      const said = complaint.trim() === '' ? '' : `: ${complaint.trim()}`;
      (outcome ?? (() => reject(new SnapshotError('INTERNAL', `the process ended ${how}${said}`))))();
    });
    child.send({ task, input, scratch } satisfies ChildTask);
  });
}
