import { execFile, spawn } from 'node:child_process';
import { existsSync, lstatSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { isDeepStrictEqual, promisify } from 'node:util';
import { ensureDirSync, removeSync } from 'fs-extra/esm';
import { OverlayDriver } from '../../src/index.ts';
import { bundled } from '../support/bundled.ts';
import { assertWhole, makeRoot } from '../support/store.ts';
import { waitFor } from '../support/wait-for.ts';
import { fixture, operations } from './operate.mjs';
import { readTree } from './read-tree.mjs';

const run = promisify(execFile);
const script = bundled('operate.mjs');

/** The calls by which an operation changes anything. */
const CALLS = [
  'fsync',
  'fdatasync',
  'syncfs',
  'mkdir',
  'mkdirat',
  'rename',
  'renameat',
  'rmdir',
  'unlink',
  'unlinkat',
  'pwrite64',
  'ftruncate',
  'mknodat',
  'symlink',
  'link',
  'copy_file_range',
  'lsetxattr',
  'flock',
];

/** One place where something is done to an operation. */
export interface Point {
  readonly call: string;
  /** Which of the calls that one thread makes, from 1 on. */
  readonly when: number;
}

/** What an operation said of itself. */
interface Run {
  readonly lines: readonly string[];
}

/** Everything that matters of a store, with names in place of ids. */
type State = Record<string, unknown>;

/**
 * Does one operation again and again on copies of one store, each time with something done to it at another of its
 * system calls, and judges what a fresh open finds: all of it, or nothing of it.
 */
export class Sweep {
  readonly operation: string;
  readonly #scratch: ReturnType<typeof makeRoot>;
  #before: State = {};
  #after: State = {};
  #points: Point[] = [];
  #count = 0;

  private constructor(operation: string) {
    this.operation = operation;
    this.#scratch = makeRoot();
  }

  /** Makes the store and runs the operation undisturbed. */
  static async begin(operation: string): Promise<Sweep> {
    const sweep = new Sweep(operation);
    const driver = await OverlayDriver.open(sweep.#original, { asyncRemove: true });
    if (operation !== 'open') await fixture(driver, operation);
    await driver.close();
    if (operation === 'open') removeSync(sweep.#original);
    await sweep.#withCopy(async (root) => {
      sweep.#before = await settled(root);
    });
    await sweep.#withCopy(async (root) => {
      const { lines } = await sweep.#run(root, []);
      if (lines.join() !== 'done,ended') throw new Error(`${operation} says ${lines.join()}`);
      sweep.#after = await settled(root);
    });
    sweep.#points = await sweep.#findPoints();
    return sweep;
  }

  /** Every call of the operation, those of opening the store left out. */
  get points(): readonly Point[] {
    return this.#points;
  }

  end(): void {
    this.#scratch.remove();
  }

  /** Kills the operation as it makes a call. @returns what is wrong afterwards */
  async kill({ call, when }: Point): Promise<string[]> {
    return this.#judge([`inject=${call}:signal=KILL:when=${when}`], ({ lines }) =>
      lines.some((line) => line !== 'done' && line !== 'ended') ? [`it says ${lines.join()}`] : [],
    );
  }

  /** Lets a call fail, once or from then on. @returns what is wrong afterwards */
  async fail({ call, when }: Point, error: 'EIO' | 'ENOSPC', lasting: boolean): Promise<string[]> {
    const injection = `inject=${call}:error=${error}:when=${when}${lasting ? '+' : ''}`;
    return this.#judge([injection], ({ lines }) => {
      const [first = '', second = ''] = lines;
      const wrong: string[] = [];
      const mayFailWith = ['UNAVAILABLE', 'RESOURCE_EXHAUSTED', 'DATA_LOSS', 'FAILED_PRECONDITION'];
      if (first !== 'done' && !mayFailWith.includes(first)) wrong.push(`it fails with ${first}`);
      // What became of it may be known only to the second attempt; of a sync that failed the disk speaks only once.
      const retried = [...mayFailWith, 'done', 'ALREADY_EXISTS', 'NOT_FOUND'];
      if (first !== 'done' && !retried.includes(second)) wrong.push(`a second attempt fails with ${second}`);
      if (lines.at(-1) !== 'ended') wrong.push(`it did not come to its end but said ${lines.join()}`);
      return wrong;
    });
  }

  get #original(): string {
    return join(this.#scratch.root, 'original');
  }

  async #withCopy<T>(body: (root: string) => Promise<T>): Promise<T> {
    this.#count += 1;
    const root = join(this.#scratch.root, `copy-${this.#count}`);
    if (existsSync(this.#original)) await run('cp', ['-a', this.#original, root]);
    try {
      return await body(root);
    } finally {
      removeSync(root);
    }
  }

  async #judge(injections: readonly string[], judge: (run: Run) => string[]): Promise<string[]> {
    return this.#withCopy(async (root) => {
      const expressions = injections.flatMap((injection) => [
        '-e',
        `trace=${/=(\w+):/.exec(injection)?.[1] ?? ''}`,
        '-e',
        injection,
      ]);
      const result = await this.#run(root, ['-o', '/dev/null', ...expressions]);
      const wrong = judge(result);
      try {
        const state = await settled(root);
        const done = result.lines.includes('done');
        if (done && !isDeepStrictEqual(state, this.#after)) {
          wrong.push(`it was acknowledged, and the store holds ${compare(state, this.#after)}`);
        }
        if (!done && !isDeepStrictEqual(state, this.#after) && !isDeepStrictEqual(state, this.#before)) {
          wrong.push(`half of it is there: ${compare(state, this.#after)}; ${compare(state, this.#before)}`);
        }
        wrong.push(...(await this.#goOn(root, state)));
      } catch (error) {
        wrong.push(`the store cannot be used any more: ${String(error)}`);
      }
      return wrong.map((text) => `${this.operation}, ${injections.join()}: ${text}`);
    });
  }

  /** What is not there can be done again, and other things too. */
  async #goOn(root: string, state: State): Promise<string[]> {
    await using driver = await OverlayDriver.open(root, { asyncRemove: true });
    if (!isDeepStrictEqual(state, this.#after)) await operations[this.operation]?.(driver);
    await driver.prepare('afterwards');
    await driver.commit('after that', 'afterwards');
    await driver.delete('after that');
    await driver.close();
    const now = await settled(root);
    return isDeepStrictEqual(now, this.#after) ? [] : [`done again it gives ${compare(now, this.#after)}`];
  }

  /** Runs the operation under strace, with a pool of one thread, since strace counts the calls of each by itself. */
  async #run(root: string, options: readonly string[], operation = this.operation): Promise<Run> {
    const command = [
      ...(operation === 'commit of a copy' ? await mounting(root) : []),
      // With a filter in the kernel, only the calls that matter are stopped at: it takes half the time.
      ...(options.length > 0 ? ['strace', '-f', '--seccomp-bpf', '-qq', ...options] : []),
      process.execPath,
      script,
      root,
      operation,
    ];
    const [file = '', ...args] = command;
    const child = spawn(file, args, {
      stdio: ['ignore', 'pipe', 'pipe'],
      env: { ...process.env, UV_THREADPOOL_SIZE: '1' },
      // A run that hangs does not say that it ended.
      timeout: 300_000,
      killSignal: 'SIGKILL',
    });
    let out = '';
    let errors = '';
    child.stdout.setEncoding('utf8').on('data', (text: string) => (out += text));
    child.stderr.setEncoding('utf8').on('data', (text: string) => (errors += text));
    await new Promise((resolve) => child.once('close', resolve));
    if (errors !== '') throw new Error(`${command.join(' ')}: ${errors}`);
    return { lines: out.split('\n').slice(0, -1) };
  }

  /** Finds out which calls the operation makes after the store was opened, and how many of each one thread does. */
  async #findPoints(): Promise<Point[]> {
    const count = async (operation: string): Promise<Map<string, number>> =>
      this.#withCopy(async (root) => {
        const log = `${root}-trace`;
        await this.#run(root, ['-o', log, '-e', `trace=${CALLS.join()}`], operation);
        return countCalls(readFileSync(log, 'utf8'));
      });
    const opening = this.operation === 'open' ? new Map<string, number>() : await count('open');
    return [...(await count(this.operation))].flatMap(([call, last]) => {
      const first = (opening.get(call) ?? 0) + 1;
      return Array.from({ length: Math.max(0, last + 1 - first) }, (_, index) => ({
        call,
        when: first + index,
      }));
    });
  }
}

/** The words before a command that let it find the layer of `active` mounted, in a namespace that goes with it. */
async function mounting(root: string): Promise<string[]> {
  await using driver = await OverlayDriver.open(root, { asyncRemove: true });
  const [mount] = await driver.mounts('active');
  const target = `${root}-mounted`;
  ensureDirSync(target);
  const mountFirst = `mount -t overlay overlay '${target}' -o '${mount?.options.join()}' && exec "$@"`;
  return ['unshare', '-m', '--propagation', 'private', 'sh', '-c', mountFirst, 'sh'];
}

/** The highest number of each call that any thread makes. */
function countCalls(trace: string): Map<string, number> {
  const threads = new Map<string, number>();
  for (const line of trace.split('\n')) {
    const [, thread, call] = /^(\d+) +(\w+)\(/.exec(line) ?? [];
    if (thread === undefined || call === undefined) continue;
    threads.set(`${call} ${thread}`, (threads.get(`${call} ${thread}`) ?? 0) + 1);
  }
  const counts = new Map<string, number>();
  for (const [key, count] of threads) {
    const call = key.slice(0, key.indexOf(' '));
    counts.set(call, Math.max(counts.get(call) ?? 0, count));
  }
  return counts;
}

/** Opens a store, lets it clean up, and reads all of it: rows through the shell, layers with plain node:fs. */
async function settled(root: string): Promise<State> {
  const driver = await OverlayDriver.open(root, { asyncRemove: true });
  // The mount namespace of a process that was killed may be there a little longer.
  const isClean = async (): Promise<boolean> => (await driver.cleanup()).deferred.length === 0;
  await waitFor('the mount namespace of a killed process to go', isClean);
  await driver.close();
  const [rows = [], journal] = assertWhole(
    root,
    `select json_object('id', id, 'name', name, 'kind', kind, 'parent', parent, 'inodes', inodes,
                        'labels', labels, 'sealed', seal is not null, 'in_use', in_use)
       from snapshot_overview join (select id as own, seal, in_use from snapshot) on own = id
      order by name`,
    'select * from removal',
  );
  const state: State = { journal, lost: existsSync(join(root, 'lost+found')) };
  for (const { id, ...row } of rows.map((line) => JSON.parse(line) as { id: number; name: string })) {
    const layer = join(root, 'snapshots', String(id), 'fs');
    const tree = lstatSync(layer, { throwIfNoEntry: false }) && readTree(layer);
    // The root of a layer is as old as the attempt that made it.
    if (tree !== undefined) tree['.'] = tree['.']?.replace(/\d{19}/, '') ?? '';
    state[row.name] = { ...row, tree };
  }
  return state;
}

function compare(found: State, expected: State): string {
  const names = [...new Set([...Object.keys(found), ...Object.keys(expected)])];
  return names
    .filter((name) => !isDeepStrictEqual(found[name], expected[name]))
    .map((name) => `${name}: ${JSON.stringify(found[name])} instead of ${JSON.stringify(expected[name])}`)
    .join('; ')
    .slice(0, 1000);
}

/** Runs tasks a few at a time. */
export async function inParallel<T>(items: readonly T[], task: (item: T) => Promise<void>): Promise<void> {
  const queue = [...items];
  const worker = async (): Promise<void> => {
    for (let item = queue.shift(); item !== undefined; item = queue.shift()) await task(item);
  };
  await Promise.all(Array.from({ length: 3 }, worker));
}
