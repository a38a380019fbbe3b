import assert from 'node:assert/strict';
import { type ErrorCode, SnapshotError } from '../errors.ts';
import type { Info, Snapshotter } from '../snapshot.ts';

/** The body of a case. */
export type Body = (snapshotter: Snapshotter) => Promise<void>;

/** Everything in a store, to compare. */
export async function contents(snapshotter: Snapshotter): Promise<Info[]> {
  const infos: Info[] = [];
  for await (const info of snapshotter.snapshots()) infos.push(info);
  return infos;
}

/** Asserts that something fails with a code, and that the store is as before. */
export async function refuses(
  snapshotter: Snapshotter,
  code: ErrorCode,
  body: () => Promise<unknown>,
): Promise<void> {
  const before = await contents(snapshotter);
  await assert.rejects(body, (error) => {
    assert.ok(error instanceof SnapshotError, `not a SnapshotError: ${String(error)}`);
    assert.equal(error.code, code, error.message);
    return true;
  });
  assert.deepEqual(await contents(snapshotter), before);
}

/** Asserts that something is a `TypeError`, and that the store is as before. */
export async function isTypeError(snapshotter: Snapshotter, body: () => Promise<unknown>): Promise<void> {
  const before = await contents(snapshotter);
  await assert.rejects(body, TypeError);
  assert.deepEqual(await contents(snapshotter), before);
}

/** Makes a committed snapshot with nothing in it. */
export async function makeCommitted(snapshotter: Snapshotter, name: string, parent?: string): Promise<Info> {
  await snapshotter.prepare(`making ${name}`, parent);
  return snapshotter.commit(name, `making ${name}`);
}

/** The names of a list. */
export function namesOf(infos: readonly Info[]): string[] {
  return infos.map(({ name }) => name);
}
