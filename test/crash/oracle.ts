import { existsSync, lstatSync, readFileSync } from 'node:fs';
import { isDeepStrictEqual } from 'node:util';
import { OverlayDriver, checkStore } from '../../src/index.ts';
import { queryShell } from '../support/shell.ts';
import { assertWhole } from '../support/store.ts';
import { readTree } from './read-tree.mjs';

/** What a workload is told to do. */
export interface Plan {
  readonly root: string;
  /** Where it writes what it does and what it was told, outside the store. */
  readonly log: string;
  /** Its own part of every name and key. */
  readonly name: string;
  readonly seed: number;
  /** How many things it does at once. */
  readonly lanes: number;
  readonly durability?: 'full' | 'metadata';
  /** Weaken the database behind the driver's back. */
  readonly synchronous?: 'normal';
  /** Where it mounts layers to write to some of them through an overlay. */
  readonly mount?: string;
  /** A file elsewhere that it writes much to, so that layers are synced file by file and not all at once. */
  readonly dirty?: string;
  /** Others work on the same root: build on what they made, and delete nothing. */
  readonly shared?: boolean;
  /** The power of the whole machine is cut, from outside. */
  readonly machine?: true;
  /** Cut the power of this disk as soon as the so-many-th operation of a kind was acknowledged. */
  readonly disk?: string;
  readonly cutAfter?: { readonly kind: string; readonly count: number };
}

/** What is known of a snapshot. */
interface Entry {
  readonly kind: string;
  readonly parent: string | null;
  readonly labels: Record<string, string>;
  /** What its layer holds, if it is committed. */
  readonly tree?: Record<string, string>;
}

/** What an operation changes. */
interface Change {
  readonly add?: Record<string, Entry>;
  readonly remove?: string[];
  readonly labels?: Record<string, Record<string, string>>;
}

interface LogLine {
  operation?: string;
  kind?: string;
  change?: Change;
  done?: true;
  refused?: string;
  wal?: number;
  restarts?: number;
}

/** What came of a judgement. */
export interface Judgement {
  /** What was promised and is not so, a sentence each. */
  readonly violations: string[];
  /** How many operations were acknowledged in the logs. */
  readonly acknowledged: number;
  /** How many of them after the WAL had begun to be used again, in a part of it that was there before. */
  readonly inReusedWal: number;
  /** Operations that were refused, and with which code. */
  readonly refused: string[];
}

/**
 * Knows what a store must hold, from nothing but the logs of those who worked on it, and compares it with what a
 * fresh open finds. It lives on from one crash to the next.
 */
export class Oracle {
  #expected = new Map<string, Entry>();

  /** Reads what was logged since the last time, and judges the store after a crash. */
  async judge(root: string, logs: readonly string[]): Promise<Judgement> {
    const violations: string[] = [];
    const refused: string[] = [];
    const unsure: Change[] = [];
    let acknowledged = 0;
    let inReusedWal = 0;
    for (const log of logs) {
      const open = new Map<string, Change>();
      let last: LogLine = {};
      for (const line of readLog(log)) {
        if (line.operation === undefined) continue;
        if (line.change !== undefined) open.set(line.operation, line.change);
        const change = open.get(line.operation);
        if (change === undefined) continue;
        if (line.refused !== undefined) refused.push(line.refused);
        if (line.done !== true) continue;
        acknowledged += 1;
        if ((line.restarts ?? 0) > 0 && line.restarts === last.restarts && line.wal === last.wal)
          inReusedWal += 1;
        last = line;
        open.delete(line.operation);
        this.#expected = applied(this.#expected, change);
      }
      unsure.push(...open.values());
    }
    try {
      const found = await read(root);
      for (const change of unsure) this.#settle(change, found);
      violations.push(...differences(this.#expected, found));
      violations.push(...damagedLayers(root, this.#expected, found));
      violations.push(...(await leftovers(root)));
      this.#expected = new Map(
        [...found].map(([name, entry]) => [name, { ...entry, ...treeOf(this.#expected.get(name)) }]),
      );
    } catch (error) {
      violations.push(`the store cannot be judged: ${String(error)}`);
    }
    return { violations, acknowledged, inReusedWal, refused };
  }

  /** An operation whose outcome is not known is taken to have happened if any of it can be seen: then all must be. */
  #settle(change: Change, found: ReadonlyMap<string, Found>): void {
    const after = applied(this.#expected, change);
    const touched = [
      ...Object.keys(change.add ?? {}),
      ...(change.remove ?? []),
      ...Object.keys(change.labels ?? {}),
    ];
    const seen = touched.some((name) => !isSame(found.get(name), this.#expected.get(name)));
    if (seen) this.#expected = after;
  }
}

/** A snapshot as the driver tells of it. */
interface Found extends Entry {
  readonly directory: string | null;
}

function treeOf(entry: Entry | undefined): Pick<Entry, 'tree'> {
  return entry?.tree === undefined ? {} : { tree: entry.tree };
}

/** The last line may have been cut off together with the one who wrote it. */
function readLog(file: string): LogLine[] {
  const lines = readFileSync(file, 'utf8').split('\n').slice(0, -1);
  return lines.map((line) => JSON.parse(line) as LogLine);
}

function applied(entries: ReadonlyMap<string, Entry>, change: Change): Map<string, Entry> {
  const after = new Map(entries);
  for (const name of change.remove ?? []) after.delete(name);
  for (const [name, entry] of Object.entries(change.add ?? {})) after.set(name, entry);
  for (const [name, labels] of Object.entries(change.labels ?? {})) {
    const entry = after.get(name);
    if (entry !== undefined) after.set(name, { ...entry, labels });
  }
  return after;
}

async function read(root: string): Promise<Map<string, Found>> {
  const found = new Map<string, Found>();
  await using driver = await OverlayDriver.open(root, { asyncRemove: true });
  for await (const { name, kind, parent, labels, directory } of driver.snapshots()) {
    found.set(name, { kind, parent, labels, directory });
  }
  return found;
}

function isSame(a: Entry | undefined, b: Entry | undefined): boolean {
  if (a === undefined || b === undefined) return a === b;
  const { kind, parent, labels } = a;
  return isDeepStrictEqual({ kind, parent, labels }, { kind: b.kind, parent: b.parent, labels: b.labels });
}

function differences(expected: ReadonlyMap<string, Entry>, found: ReadonlyMap<string, Found>): string[] {
  const names = [...new Set([...expected.keys(), ...found.keys()])];
  return names
    .filter((name) => !isSame(found.get(name), expected.get(name)))
    .map((name) => {
      const show = (entry: Entry | undefined): string =>
        entry === undefined
          ? 'nothing'
          : `${entry.kind} on ${entry.parent} with ${JSON.stringify(entry.labels)}`;
      return `${name} is ${show(found.get(name))}, and should be ${show(expected.get(name))}`;
    });
}

function damagedLayers(
  root: string,
  expected: ReadonlyMap<string, Entry>,
  found: ReadonlyMap<string, Found>,
): string[] {
  const isDirectory = (path: string): boolean =>
    lstatSync(path, { throwIfNoEntry: false })?.isDirectory() === true;
  return [...found].flatMap(([name, { kind, directory }]) => {
    if (directory === null) return [];
    if (!directory.startsWith(`${root}/snapshots/`)) return [`the directory of ${name} is ${directory}`];
    if (!isDirectory(`${directory}/fs`)) return [`the layer of ${name} is gone`];
    if (kind === 'active' && !isDirectory(`${directory}/work`))
      return [`the work directory of ${name} is gone`];
    const tree = expected.get(name)?.tree;
    if (tree === undefined) return kind === 'committed' ? [`nothing is known of the layer of ${name}`] : [];
    const now = readTree(`${directory}/fs`);
    return [...new Set([...Object.keys(tree), ...Object.keys(now)])]
      .filter((path) => tree[path] !== now[path])
      .map((path) => `${path} of ${name} is ${now[path] ?? 'gone'}, and was ${tree[path] ?? 'not there'}`);
  });
}

/** What a cleanup leaves behind that it should not, and what the rules of the database find. */
async function leftovers(root: string): Promise<string[]> {
  const found: string[] = [];
  const driver = await OverlayDriver.open(root, { asyncRemove: true });
  const { deferred } = await driver.cleanup();
  for (const { path, reason } of deferred) found.push(`${path} was left: ${reason}`);
  const again = await driver.cleanup();
  if (again.removed > 0) found.push(`a second cleanup removed ${again.removed} more`);
  await driver.close();
  for (const { id, part, state } of queryShell(
    `${root}/metadata.db`,
    'select id, part, state from removal',
  )) {
    found.push(`${id} is still in the journal, ${part}, ${state}`);
  }
  try {
    assertWhole(root);
  } catch (error) {
    found.push(`the store is not whole: ${String(error)}`);
  }
  const { findings } = await checkStore(root);
  for (const { code, severity, message } of findings) {
    if (severity !== 'info') found.push(`the check finds ${code}: ${message}`);
  }
  if (existsSync(`${root}/lost+found`)) found.push('something was set aside in lost+found');
  return found;
}
