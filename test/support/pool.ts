import { type ChildProcess, fork } from 'node:child_process';
import { join } from 'node:path';
import type { PoolOptions, PoolRunnerInitializer, PoolWorker, WorkerRequest } from 'vitest/node';

/**
 * The options of unshare(1) for the process of a test file. It has its own mounts, which the mount namespaces that other
 * test files make do not hold. And it has its own processes, or a driver would look for users of a layer among all
 * processes of the machine; they end with it.
 */
export const namespaces = [
  '--mount',
  '--propagation=private',
  '--pid',
  '--fork',
  '--kill-child',
  '--mount-proc',
];

/** The process of a test file, as Vitest's own pool of forks starts it, in namespaces. */
class NamespacedFork implements PoolWorker {
  readonly name = inNamespaces.name;
  /** Lets Vitest write what it transforms into files, for processes are not sent it. */
  readonly cacheFs = true;
  readonly #options: PoolOptions;
  #child: ChildProcess | undefined;

  constructor(options: PoolOptions) {
    this.#options = options;
  }

  start(): Promise<void> {
    const { distPath, env, execArgv, project } = this.#options;
    this.#child = fork(join(distPath, 'workers/forks.js'), [], {
      execPath: 'unshare',
      execArgv: [...namespaces, process.execPath, ...execArgv],
      env,
      serialization: 'advanced',
      stdio: 'pipe',
    });
    const { outputStream, errorStream } = project.vitest.logger;
    this.#child.stdout?.on('data', (data: Buffer) => outputStream.write(data));
    this.#child.stderr?.on('data', (data: Buffer) => errorStream.write(data));
    return Promise.resolve();
  }

  async stop(): Promise<void> {
    const child = this.#running;
    if (child.exitCode !== null || child.signalCode !== null) return;
    const ended = new Promise((resolve) => child.once('exit', resolve));
    child.kill('SIGKILL');
    await ended;
  }

  on(event: string, callback: (argument: unknown) => void): void {
    this.#running.on(event, callback);
  }

  off(event: string, callback: (argument: unknown) => void): void {
    this.#running.off(event, callback);
  }

  send(message: WorkerRequest): void {
    this.#running.send(message);
  }

  deserialize(data: unknown): unknown {
    return data;
  }

  get #running(): ChildProcess {
    if (this.#child === undefined) throw new Error('the process of the test file was not started');
    return this.#child;
  }
}

/** A pool for Vitest. */
export const inNamespaces: PoolRunnerInitializer = {
  name: 'forks in namespaces',
  createPoolWorker: (options) => new NamespacedFork(options),
};
