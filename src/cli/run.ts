import { type ChildProcess, type SpawnOptions, spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { lstatSync } from 'node:fs';
import { constants } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Command } from 'commander';
import type { OverlayDriver } from '../driver/driver.ts';
import { SnapshotError, toSnapshotError } from '../errors.ts';
import { guarded } from '../guarded.ts';
import { DirectoryLock } from '../layers/directory-lock.ts';
import { HeldRoot } from '../layers/held-root.ts';
import { RUN_LABEL, type RunPurpose } from '../layers/run-workspace.ts';
import { errnoOf } from '../linux/errno.ts';
import { attachMountAt, bindMounts, changeRoot, inNewMountNamespace } from '../linux/namespace.ts';
import { quote } from '../quote.ts';
import type { Info, Labels, MountMethod } from '../snapshot.ts';
import { type Statuses, type StoreOptions, byOption, labelOption, writeCommand } from './command.ts';
import { findMountPoint } from './mount-point.ts';
import { note, noteJson, shown } from './output.ts';
import { handOver, stopSignal } from './stopping.ts';
import { openStore } from './store.ts';
import { bytes } from './units.ts';

interface RunCommandOptions extends StoreOptions {
  readonly commit?: string;
  readonly label?: Labels;
  readonly chroot?: true;
  readonly by?: MountMethod;
}

/** How a command ended. If a signal ended it, `status` is 128 and its number, as in a shell. */
interface Ended {
  readonly status: number;
  readonly signal: NodeJS.Signals | null;
}

/** As in env(1), chroot(8) and podman. */
const STATUS = { failed: 125, notExecutable: 126, notFound: 127, signal: 128 } as const;

const statuses: Statuses = {
  words: `that of the command, or 128 and the number of the signal that ended it; 127 if it was not found, 126
if it cannot be run, 125 for every other failure, including wrong usage.`,
  usage: STATUS.failed,
  failed: () => STATUS.failed,
};

const NOTE = `An active snapshot or a view is used directly. For a committed one a workspace is made, and thrown away
afterwards unless --commit is given; nothing is committed if the command fails. The tree is the working directory of
the command, at /run/overlite-run/tree in a mount namespace of the command, where nobody else sees it. Ctrl-C goes to
the command. Needs root.`;

function runner(name: string, description: string, examples: readonly string[]): Command {
  return writeCommand(name, description, { examples, note: NOTE, statuses })
    .argument('<key-or-name>', 'a snapshot of any kind')
    .option('--commit <new-name>', 'commit the result under this name if the command succeeds')
    .addOption(labelOption())
    .addOption(byOption())
    .option(
      '--chroot',
      'make the tree the root directory, with /dev, /proc and /sys of this system where it has such directories',
    );
}

/** `overlite run` */
export const runCommand = runner('run', 'Run a command in the tree of a snapshot', [
  'overlite run workspace -- make test',
  'overlite run debian --chroot --commit debian-curl -- apt-get install -y curl',
])
  .argument('<command...>', 'the command with its arguments')
  .action((keyOrName: string, command: string[], options: RunCommandOptions) =>
    runIn(keyOrName, command, options),
  );

/** `overlite shell` */
export const shellCommand = runner('shell', 'Run a shell in the tree of a snapshot', [
  'overlite shell workspace',
  'overlite shell base --commit base-2',
]).action((keyOrName: string, options: RunCommandOptions) => {
  const own = process.env['SHELL'] ?? '';
  return runIn(keyOrName, [options.chroot === true || own === '' ? '/bin/sh' : own], options);
});

async function runIn(keyOrName: string, given: readonly string[], options: RunCommandOptions): Promise<void> {
  const { commit: name, label: labels = {} } = options;
  // After the `--` before a name that begins with a dash, a second one is optional.
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
  let lock: DirectoryLock | undefined;
  try {
    if (throwaway) {
      lock = await prepareWorkspace(driver, key, keyOrName, name === undefined ? 'throw-away' : 'commit');
      thrownAway = true;
    }
    ended = await start(driver, key, command, options);
    if (name !== undefined && ended.status === 0) {
      try {
        info = await commit(driver, name, key, labels);
      } catch (error) {
        // The result of the command is worth keeping, unless the user has stopped it.
        if (!throwaway || stopSignal.aborted) throw error;
        thrownAway = false;
        await keepWorkspace(driver, key);
        throw unsaved(error, key);
      }
      thrownAway = false;
    }
  } finally {
    if (thrownAway) ({ deferred } = await driver.remove(key));
    lock?.release();
  }
  process.exitCode = ended.status;
  await report(driver, { key, ended, info, removed: thrownAway, deferred }, options);
}

/**
 * Makes the workspace of one command, with a label that says what becomes of it. It cannot be seen before it is locked
 * too: so if this process is killed, others find that the workspace was left behind.
 */
function prepareWorkspace(
  driver: OverlayDriver,
  key: string,
  parent: string,
  purpose: RunPurpose,
): Promise<DirectoryLock> {
  return driver.transaction((tx) => {
    tx.prepare(key, parent, { volatile: purpose === 'throw-away', labels: { [RUN_LABEL]: purpose } });
    const { id, directory } = tx.stat(key);
    const held = new HeldRoot(dirname(dirname(directory ?? '')));
    try {
      return DirectoryLock.takeNewLayer(held, id);
    } finally {
      held.close();
    }
  });
}

/** Makes it a workspace like any other. If that fails, the user learns all the same that it is kept. */
async function keepWorkspace(driver: OverlayDriver, key: string): Promise<void> {
  await driver.update(key, { labels: {} }, [`labels.${RUN_LABEL}`]).catch(() => {});
}

/** The error if only the commit failed: the result of the command is still there. */
function unsaved(error: unknown, key: string): SnapshotError | TypeError {
  const known = toSnapshotError(error, 'committing');
  if (!(known instanceof SnapshotError)) return known;
  return new SnapshotError(known.code, known.message, {
    cause: error,
    hint: `the result of the command is kept in ${quote(key)}: commit that, or remove it`,
  });
}

interface RunResult {
  readonly key: string;
  readonly ended: Ended;
  readonly info: Info | undefined;
  readonly removed: boolean;
  readonly deferred: string | undefined;
}

/** Reports the result on standard error, since standard output is the command's. */
async function report(
  driver: OverlayDriver,
  { key, ended, info, removed, deferred }: RunResult,
  { json, commit: name }: RunCommandOptions,
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

/** Refuses what cannot be committed before the command is run. */
async function checkCommit(
  driver: OverlayDriver,
  keyOrName: string,
  kind: Info['kind'],
  { commit: name, label }: RunCommandOptions,
): Promise<void> {
  if (name === undefined) {
    if (label === undefined) return;
    throw new SnapshotError('INVALID_ARGUMENT', 'labels are only for a snapshot that is committed', {
      hint: 'add --commit',
    });
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
  { root, chroot, by }: RunCommandOptions,
): Promise<Ended> {
  const mounted = await driver.openMount(key, by && { by });
  let running: { end: Promise<Ended> };
  try {
    // From here on the command gets the signals.
    stopSignal.throwIfAborted();
    running = inNewMountNamespace(() => {
      const target = findMountPoint(root);
      attachMountAt(mounted.fd, target);
      if (chroot === true) enter(target);
      const cwd = chroot === true ? '/' : target;
      const env = { ...process.env, PWD: cwd, OVERLITE_ROOT: resolve(root), OVERLITE_KEY: key };
      return { end: begin(command, { cwd, env, stdio: 'inherit' }) };
    });
  } catch (error) {
    throw stopSignal.aborted ? error : toEnterError(error, key);
  } finally {
    await mounted.close();
  }
  return running.end;
}

function toEnterError(error: unknown, key: string): Error {
  if (errnoOf(error) !== 'EINVAL') return toSnapshotError(error, `entering ${quote(key)}`);
  return new SnapshotError('FAILED_PRECONDITION', 'the root directory of this process is not a mount', {
    cause: error,
    hint: 'mount it on itself first (mount --bind), or leave the chroot',
  });
}

/** Makes a tree the root directory, with the directories of this system that programs expect. */
function enter(tree: string): void {
  for (const directory of ['/dev', '/proc', '/sys']) {
    // It may be a symbolic link in the tree, which could lead out of it.
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
  return new Promise((done, fail) => {
    child.on(
      'error',
      guarded((error) => done(refuse(error)), fail),
    );
    child.on('exit', (status, signal) => {
      done({ status: signal === null ? (status ?? 0) : STATUS.signal + constants.signals[signal], signal });
    });
  });
}

/** How long the kernel may take to end a mount namespace after its last process, in milliseconds. */
const PATIENCE_MS = 2000;

/** Commits the result of a command. If it left processes behind that may go on writing, a copy is committed. */
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
