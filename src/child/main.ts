import { SnapshotError, toSnapshotError } from '../errors.ts';
import { mkdirSync } from 'node:fs';
import type { ChildMessage, ChildTask, Workplace } from './run.ts';

/** A task: it works on what it is given, may tell of events, and gives a result. */
type Task = (input: never, workplace: Workplace<unknown>) => Promise<unknown>;

/** The tasks that run in a process of their own. */
const tasks: Readonly<Record<string, () => Promise<Task>>> = {
  check: async () => (await import('../check/examine.ts')).examine,
  backup: async () => (await import('../metadata/backup.ts')).writeBackup,
  restore: async () => (await import('../check/restore.ts')).restoreDatabase,
};

function send(message: ChildMessage): Promise<void> {
  return new Promise((resolve) => process.send?.(message, undefined, undefined, () => resolve()));
}

async function perform({ task, input, scratch }: ChildTask): Promise<void> {
  const workplace: Workplace<unknown> = {
    emit: (event) => void send({ type: 'event', event }),
    scratch: () => {
      mkdirSync(scratch, { recursive: true, mode: 0o700 });
      return scratch;
    },
  };
  try {
    const run = await tasks[task]?.();
    if (run === undefined) throw new SnapshotError('INTERNAL', `there is no task ${task}`);
    await send({ type: 'result', result: await run(input as never, workplace) });
  } catch (error) {
    const failure = toSnapshotError(error, task);
    const { message } = failure;
    const { code, hint } =
      failure instanceof SnapshotError ? failure : { code: 'INTERNAL' as const, hint: undefined };
    await send({ type: 'error', code, message, hint });
  }
  process.disconnect();
}

process.once('message', (task: ChildTask) => void perform(task));

// Whoever wanted the result is gone.
process.once('disconnect', () => process.exit());
