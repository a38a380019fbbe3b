/**
 * The program of the child processes in which check, backup and restore run. The caller's side is `linux/child.ts`.
 */
import { mkdirSync } from 'node:fs';
import { checkTask } from './check/check.ts';
import { restoreTask } from './check/restore.ts';
import { SnapshotError, toSnapshotError } from './errors.ts';
import type { ChildMessage, ChildRequest, Task, TaskContext } from './linux/child.ts';
import { backupTask } from './metadata/backup/backup.ts';

/** Carries out a task by its name. The input comes from `runInChild`, which took it with the type of the same task. */
type Handler = (input: unknown, context: TaskContext<unknown>) => Promise<unknown>;

/** The function of a task, which is loaded only when the task is run. */
function handler<Input, Event, Result>(
  { name }: Task<Input, Event, Result>,
  load: () => Promise<(input: Input, context: TaskContext<Event>) => Promise<Result>>,
): [string, Handler] {
  return [name, async (input, context) => (await load())(input as Input, context)];
}

const handlers: ReadonlyMap<string, Handler> = new Map([
  handler(checkTask, async () => (await import('./check/check.task.ts')).examine),
  handler(backupTask, async () => (await import('./metadata/backup/backup.task.ts')).writeBackup),
  handler(restoreTask, async () => (await import('./check/restore.task.ts')).restoreDatabase),
]);

function send(message: ChildMessage): Promise<void> {
  return new Promise((resolve) => process.send?.(message, undefined, undefined, () => resolve()));
}

async function perform({ task, input, scratch }: ChildRequest): Promise<void> {
  const context: TaskContext<unknown> = {
    // An event that cannot be sent changes nothing about the result.
    emit: (event) => void send({ type: 'event', event }).catch(() => {}),
    scratch: () => {
      mkdirSync(scratch, { recursive: true, mode: 0o700 });
      return scratch;
    },
  };
  try {
    const run = handlers.get(task);
    if (run === undefined) throw new SnapshotError('INTERNAL', `there is no task ${task}`);
    await send({ type: 'result', result: await run(input, context) });
  } catch (error) {
    const failure = toSnapshotError(error, task);
    const { message } = failure;
    const { code, hint } =
      failure instanceof SnapshotError ? failure : { code: 'INTERNAL' as const, hint: undefined };
    await send({ type: 'error', code, message, hint });
  }
  process.disconnect();
}

// If not even an error can be sent, the parent process is told by the status.
process.once('message', (request: ChildRequest) => void perform(request).catch(() => process.exit(1)));

// Nobody is left who wants the result.
process.once('disconnect', () => process.exit());
