import { type ChildProcess, type SpawnOptions, spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { lstatSync } from 'node:fs';
import { mkdtemp, rmdir } from 'node:fs/promises';
import { constants, tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Command } from 'commander';
import type { OverlayDriver } from '../driver/driver.ts';
import { SnapshotError, toSnapshotError } from '../errors.ts';
import { errnoOf } from '../linux/errno.ts';
import { lookAtAllMounts } from '../linux/mountinfo.ts';
import { attachMountAt, bindMounts, changeRoot, inNewMountNamespace } from '../linux/namespace.ts';
import { quote } from '../quote.ts';
import type { Info, Labels, MountMethod } from '../snapshot.ts';
import { type Statuses, type StoreOptions, byOption, labelOption, writeCommand } from './command.ts';
import { note, noteJson, shown } from './output.ts';
import { handOver, stopSignal } from './stopping.ts';
import { openStore } from './store.ts';
import { bytes } from './units.ts';

interface Options extends StoreOptions {
  readonly commit?: string;
  readonly label?: Labels;
  readonly chroot?: true;
  readonly by?: MountMethod;
}

/** How a command ended: `signal` is set if one has ended it, and then `status` is that of a shell. */
interface Ended {
  readonly status: number;
  readonly signal: NodeJS.Signals | null;
}

/** As of env(1), chroot(8) and podman. */
const STATUS = { failed: 125, notExecutable: 126, notFound: 127, signal: 128 } as const;

const statuses: Statuses = {
  words: `that of the command, or 128 and the number of the signal that ended it; 127 it was not found, 126 it
cannot be run, 125 anything else went wrong, wrong usage too.`,
  usage: STATUS.failed,
  failed: () => STATUS.failed,
};

const NOTE = `An active snapshot or a view is used as it is. A committed one gets a workspace of its own, which is
thrown away afterwards, unless --commit makes a snapshot of it; nothing is committed if the command fails. The tree
is mounted in a mount namespace of the command's own, where nobody else sees it, and is its working directory.
Ctrl-C goes to the command. Wants root.`;

function runner(name: string, description: string, examples: readonly string[]): Command {
  return writeCommand(name, description, { examples, note: NOTE, statuses })
    .argument('<key-or-name>', 'a snapshot of any kind')
    .option('--commit <new-name>', 'commit what it leaves under this name, if it ends with status 0')
    .addOption(labelOption())
    .addOption(byOption())
    .option(
      '--chroot',
      'make the tree its root, with /dev, /proc and /sys of this system where they are there',
    );
}

/** `overlite run` */
export const runCommand = runner('run', 'Run a command in the tree of a snapshot', [
  'overlite run workspace -- make test',
  'overlite run debian --chroot --commit debian-curl -- apt-get install -y curl',
])
  .argument('<command...>', 'the command with its arguments')
  .action((keyOrName: string, command: string[], options: Options) => runIn(keyOrName, command, options));

/** `overlite shell` */
export const shellCommand = runner('shell', 'Run a shell in the tree of a snapshot', [
  'overlite shell workspace',
  'overlite shell base --commit base-2',
]).action((keyOrName: string, options: Options) => {
  const own = process.env['SHELL'] ?? '';
  return runIn(keyOrName, [options.chroot === true || own === '' ? '/bin/sh' : own], options);
});

async function runIn(keyOrName: string, given: readonly string[], options: Options): Promise<void> {
  const { commit: name, label: labels = {} } = options;
  // After the one in front of a name that begins with a dash, another one is not needed, and may be there.
  const command = given[0] === '--' ? given.slice(1) : given;
  if ((command[0] ?? '') === '') throw new SnapshotError('INVALID_ARGUMENT', 'the command is empty');
  await using driver = await openStore(options);
  const { kind } = await driver.stat(keyOrName);
  await checkCommit(driver, keyOrName, kind, options);
  const throwaway = kind === 'committed';
  const key = throwaway ? `run-${randomBytes(6).toString('hex')}` : keyOrName;
  let thrownAway = false;
  let deferred: string | undefined;
  let ended: Ended;
  let info: Info | undefined;
  const target = await mkdtemp(join(tmpdir(), 'overlite-run-'));
  try {
    if (throwaway) {
      await driver.prepare(key, keyOrName, { volatile: name === undefined });
      thrownAway = true;
    }
    ended = await start(driver, key, command, target, options);
    if (name !== undefined && ended.status === 0) {
      try {
        info = await commit(driver, name, key, labels);
      } catch (error) {
        // What the command has done is worth keeping, unless the user says otherwise.
        if (!throwaway || stopSignal.aborted) throw error;
        thrownAway = false;
        throw unsaved(error, key);
      }
      thrownAway = false;
    }
  } finally {
    if (thrownAway) ({ deferred } = await driver.remove(key));
    await takeAway(target);
  }
  process.exitCode = ended.status;
  await report(driver, { key, ended, info, removed: thrownAway, deferred }, options);
}

/** What is said if only the commit failed: the work is still there. */
function unsaved(error: unknown, key: string): SnapshotError | TypeError {
  const known = toSnapshotError(error, 'committing');
  if (!(known instanceof SnapshotError)) return known;
  return new SnapshotError(known.code, known.message, {
    cause: error,
    hint: `what the command has done is kept in ${quote(key)}: commit that, or remove it`,
  });
}

interface Outcome {
  readonly key: string;
  readonly ended: Ended;
  readonly info: Info | undefined;
  readonly removed: boolean;
  readonly deferred: string | undefined;
}

/** Tells on standard error what came of it: standard output is the command's. */
async function report(
  driver: OverlayDriver,
  { key, ended, info, removed, deferred }: Outcome,
  { json, commit: name }: Options,
): Promise<void> {
  if (json === true) {
    noteJson({ key, ...ended, committed: info?.name ?? null, removed, deferred: deferred ?? null });
    return;
  }
  if (info !== undefined) {
    const { inodes, size } = await driver.usage(info.name);
    note(`${shown(info.name)} is committed: ${inodes} inodes, ${bytes(size)}`);
  } else if (name !== undefined) {
    note(`nothing is committed: the command ended with status ${ended.status}`);
  }
  if (deferred !== undefined) note(`the directory of the workspace stays until a cleanup: ${deferred}`);
}

/** Says what will not do before anything is run. */
async function checkCommit(
  driver: OverlayDriver,
  keyOrName: string,
  kind: Info['kind'],
  { commit: name, label }: Options,
): Promise<void> {
  if (name === undefined) {
    if (label === undefined) return;
    throw new SnapshotError('INVALID_ARGUMENT', 'labels are for what is committed', { hint: 'add --commit' });
  }
  if (kind === 'view') {
    throw new SnapshotError(
      'FAILED_PRECONDITION',
      `${quote(keyOrName)} is a view and can never be committed`,
    );
  }
  if (await driver.exists(name)) throw new SnapshotError('ALREADY_EXISTS', `${quote(name)} is taken already`);
}

/** Runs a command in the tree of a snapshot, and waits for its end. */
async function start(
  driver: OverlayDriver,
  key: string,
  command: readonly string[],
  target: string,
  { root, chroot, by }: Options,
): Promise<Ended> {
  const mounted = await mountFor(driver, key, target, by);
  let running: { end: Promise<Ended> };
  try {
    // From here on the command gets the signals.
    stopSignal.throwIfAborted();
    running = inNewMountNamespace(() => {
      mounted.enter();
      if (chroot === true) enter(target);
      const cwd = chroot === true ? '/' : target;
      const env = { ...process.env, PWD: cwd, OVERLITE_ROOT: resolve(root), OVERLITE_KEY: key };
      return { end: begin(command, { cwd, env, stdio: 'inherit' }) };
    });
  } catch (error) {
    throw stopSignal.aborted ? error : toEnterError(error, key);
  } finally {
    await mounted.leave();
  }
  return running.end;
}

/** A mount that is seen by nobody but those who are started in a namespace that it enters. */
interface Mounted {
  readonly enter: () => void;
  readonly leave: () => Promise<void>;
}

async function mountFor(
  driver: OverlayDriver,
  key: string,
  target: string,
  by: MountMethod | undefined,
): Promise<Mounted> {
  const options = by && { by };
  try {
    const detached = await driver.openMount(key, options);
    return { enter: () => attachMountAt(detached.fd, target), leave: () => detached.close() };
  } catch (error) {
    if (!(error instanceof SnapshotError && error.code === 'UNIMPLEMENTED')) throw error;
    // Before Linux 6.8, an overlay is seen by everybody until something has been started in a copy of the namespace.
    await driver.mount(key, target, options);
    return { enter: () => {}, leave: () => driver.unmount(target, { lazy: true }) };
  }
}

function toEnterError(error: unknown, key: string): Error {
  if (errnoOf(error) !== 'EINVAL') return toSnapshotError(error, `entering ${quote(key)}`);
  return new SnapshotError('FAILED_PRECONDITION', 'the root directory of this process is no mount', {
    cause: error,
    hint: 'mount it on itself first (mount --bind), or leave the chroot',
  });
}

/** Takes a directory away, unless something that the command left has its mount there, and would lose it. */
async function takeAway(target: string): Promise<void> {
  for (const { entries } of await lookAtAllMounts()) {
    if (entries.some(({ mountPoint }) => mountPoint === target)) return;
  }
  await rmdir(target).catch(() => {});
}

/** Makes a tree the root, with what programs expect to find in one. */
function enter(tree: string): void {
  for (const directory of ['/dev', '/proc', '/sys']) {
    // What the tree has in its place may be a link that leads out of it.
    const found = lstatSync(join(tree, directory), { throwIfNoEntry: false });
    if (found?.isDirectory() === true) bindMounts(directory, join(tree, directory));
  }
  changeRoot(tree);
}

/** Starts a command. @returns how it ends, or that it could not be started */
function begin([file = '', ...args]: readonly string[], options: SpawnOptions): Promise<Ended> {
  const refuse = (error: unknown): Ended => {
    note(`${shown(file)} cannot be run: ${errnoOf(error)}`);
    const status = errnoOf(error) === 'ENOENT' ? STATUS.notFound : STATUS.notExecutable;
    return { status, signal: null };
  };
  let child: ChildProcess;
  try {
    child = spawn(file, args, options);
  } catch (error) {
    // Some errors come at once, others as an event.
    return Promise.resolve(refuse(error));
  }
  handOver(child);
  return new Promise((done) => {
    child.on('error', (error) => done(refuse(error)));
    child.on('exit', (status, signal) => {
      done({ status: signal === null ? (status ?? 0) : STATUS.signal + constants.signals[signal], signal });
    });
  });
}

/** How long the kernel gets to let go of a mount namespace after its last process, in milliseconds. */
const PATIENCE_MS = 2000;

/** Commits what a command has left. If it left processes behind that may go on writing, they lose it: it is copied. */
async function commit(driver: OverlayDriver, name: string, key: string, labels: Labels): Promise<Info> {
  const until = performance.now() + PATIENCE_MS;
  for (;;) {
    const inUse = performance.now() < until ? 'refuse' : 'copy';
    try {
      return await driver.commit(name, key, { labels, inUse, signal: stopSignal });
    } catch (error) {
      const wait = error instanceof SnapshotError && error.code === 'FAILED_PRECONDITION';
      if (!wait || inUse === 'copy') throw error;
    }
    await sleep(20);
  }
}
