import { readFileSync } from 'node:fs';
import { expect, onTestFinished, vi } from 'vitest';
import { checkStore } from '../../src/index.ts';
import { defineTask, runInChild } from '../../src/linux/child.ts';
import { test } from '../support/fixtures.ts';

/** The ids of the processes that this one has started and that have not ended. */
function children(): number[] {
  const text = readFileSync(`/proc/self/task/${process.pid}/children`, 'utf8').trim();
  return text === '' ? [] : text.split(' ').map(Number);
}

const unknownTask = defineTask<string, never, void>('unknown-task');

test('runInChild() rejects with the SnapshotError of the task, with its code and hint', async ({ place }) => {
  await expect(runInChild(unknownTask, 'input')).rejects.toMatchObject({
    name: 'SnapshotError',
    code: 'INTERNAL',
    message: 'there is no task unknown-task',
  });
  await expect(checkStore(place)).rejects.toMatchObject({ code: 'FAILED_PRECONDITION' });
  expect(children()).toEqual([]);
});

test('runInChild() rejects with INTERNAL and the signal if its process is killed', async () => {
  const before = children();
  const running = runInChild(unknownTask, 'input');
  const started = children().find((pid) => !before.includes(pid));
  process.kill(started ?? 0, 'SIGKILL');
  await expect(running).rejects.toMatchObject({ code: 'INTERNAL', message: 'the process ended by SIGKILL' });
});

test('runInChild() kills its process when the signal is aborted, and rejects with the reason', async ({
  example,
}) => {
  const reason = new Error('enough');
  const controller = new AbortController();
  const before = children();
  const onProgress = (): void => controller.abort(reason);
  const running = checkStore(example.root, { signal: controller.signal, onProgress });
  expect(children()).toHaveLength(before.length + 1);
  await expect(running).rejects.toBe(reason);
  expect(children()).toEqual(before);
  await expect(runInChild(unknownTask, '', { signal: AbortSignal.abort(reason) })).rejects.toBe(reason);
});

test('runInChild() ends its process with an error that onEvent throws', async ({ example }) => {
  const before = children();
  let events = 0;
  const onProgress = (): never => {
    events += 1;
    throw new Error('enough');
  };
  await expect(checkStore(example.root, { onProgress })).rejects.toThrow('enough');
  expect(events).toBeGreaterThan(0);
  expect(children()).toEqual(before);
});

test('a task whose directory for temporary files cannot exist ends nothing but itself', async ({
  example,
}) => {
  vi.stubEnv('TMPDIR', `/tmp/${'x'.repeat(300)}`);
  onTestFinished(() => void vi.unstubAllEnvs());
  await expect(runInChild(unknownTask, 'input')).rejects.toMatchObject({ code: 'INTERNAL' });
  await expect(checkStore(example.root)).rejects.toMatchObject({
    name: 'SnapshotError',
    code: 'INVALID_ARGUMENT',
  });
});
