import { execFile, execFileSync, spawn } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import {
  chmodSync,
  closeSync,
  existsSync,
  mkdtempSync,
  openSync,
  readFileSync,
  readdirSync,
  rmSync,
  rmdirSync,
  writeFileSync,
} from 'node:fs';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { waitFor } from './wait-for.ts';

const run = promisify(execFile);

/** How long a command may take that hangs, in milliseconds. */
const TIMEOUT_MS = 300_000;

/** What a `ContainerdNode` needs beside root. */
export const nodeCommands = ['containerd', 'ctr', 'runc', 'busybox'];

/** Which snapshotter a node keeps its layers with: containerd's own, or the proxy plugin. */
export type SnapshotterName = 'overlayfs' | 'overlite';

const main = join(import.meta.dirname, '../../dist/cli/main.js');

/** A containerd of its own, with everything that it writes in one temporary directory. */
export class ContainerdNode {
  readonly snapshotter: SnapshotterName;
  readonly directory = mkdtempSync(join(tmpdir(), 'overlite-node-'));
  /** The namespace that `ctr` works in. Its cgroups are called like that too. */
  readonly namespace: string;
  readonly socket = join(this.directory, 'containerd.sock');
  /** The root of overlite's store. */
  readonly store: string;
  readonly #runc = join(this.directory, 'runc');
  #containerd: ChildProcess | undefined;
  #server: ChildProcess | undefined;

  /** With the image that holds pods together it serves the kubelet too. */
  constructor(snapshotter: SnapshotterName, { podImage }: { podImage?: string } = {}) {
    this.snapshotter = snapshotter;
    this.namespace = podImage === undefined ? `overlite-test-${process.pid}-${snapshotter}` : 'k8s.io';
    // Before 1.6.32 and 1.7.16 the kubelet is told that images are there, wherever they are.
    this.store = join(this.directory, 'root/io.containerd.snapshotter.v1.overlite');
    // Containers in a user namespace have to get to their root.
    chmodSync(this.directory, 0o711);
    writeFileSync(
      join(this.directory, 'config.toml'),
      // Giving a pod more protection from being killed for memory takes CAP_SYS_RESOURCE, which a test may lack.
      // Garbage is collected when the test asks for it, and at each start, but not at any time by itself.
      `version = 2
root = "${this.directory}/root"
state = "${this.directory}/state"
${podImage === undefined ? 'disabled_plugins = ["io.containerd.grpc.v1.cri"]' : ''}
[grpc]
  address = "${this.socket}"
[ttrpc]
  address = "${this.socket}.ttrpc"
[plugins."io.containerd.gc.v1.scheduler"]
  mutation_threshold = 0
  pause_threshold = 0.00001
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "${podImage ?? ''}"
  restrict_oom_score_adj = true
  stats_collect_period = 1
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "${snapshotter}"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
        Root = "${this.#runc}"
[proxy_plugins.overlite]
  type = "snapshot"
  address = "${this.directory}/overlite.sock"
`,
    );
  }

  /** The cgroup of all containers of this node. */
  get cgroup(): string {
    return this.namespace === 'k8s.io' ? `overlite-test-${process.pid}-pods` : this.namespace;
  }

  /** Where the snapshotter keeps a directory for each snapshot. */
  get layers(): string {
    return this.snapshotter === 'overlite'
      ? join(this.store, 'snapshots')
      : join(this.directory, 'root/io.containerd.snapshotter.v1.overlayfs/snapshots');
  }

  /**
   * Starts what is not running, and returns once it answers. overlite goes first: containerd waits for seconds before it
   * tries again to connect, and until then its calls fail.
   */
  async start(): Promise<void> {
    if (this.snapshotter === 'overlite') {
      this.#server ??= this.#spawn(process.execPath, main, ...this.#serve);
      await this.#answers(this.#server, () => accepts(this.#address));
    }
    this.#containerd ??= this.#spawn('containerd', '--config', join(this.directory, 'config.toml'));
    await this.#answers(this.#containerd, async () => {
      return this.ctr('snapshots', 'list').then(
        () => true,
        () => false,
      );
    });
  }

  async #answers(server: ChildProcess, answers: () => Promise<boolean>): Promise<void> {
    await waitFor('an answer of a server', async () => {
      if (ended(server)) throw new Error(`a server has ended\n${this.log()}`);
      return answers();
    });
  }

  get #address(): string {
    return join(this.directory, 'overlite.sock');
  }

  get #serve(): string[] {
    return ['serve', '--address', this.#address, '--root', this.store];
  }

  #spawn(command: string, ...args: string[]): ChildProcess {
    const log = openSync(join(this.directory, 'log'), 'a');
    try {
      return spawn(command, args, { stdio: ['ignore', log, log], env: this.#environment });
    } finally {
      closeSync(log);
    }
  }

  get #environment(): NodeJS.ProcessEnv {
    return {
      ...process.env,
      CONTAINERD_ADDRESS: this.socket,
      CONTAINERD_NAMESPACE: this.namespace,
      CONTAINERD_SNAPSHOTTER: this.snapshotter,
    };
  }

  /** Ends containerd, not its containers. */
  async stopContainerd(signal: NodeJS.Signals): Promise<void> {
    await end(this.#containerd, signal);
    this.#containerd = undefined;
  }

  /** Ends `overlite serve`, and gives its exit status. On the other node there is nothing to end. */
  async stopServer(signal: NodeJS.Signals): Promise<number | null> {
    const server = this.#server;
    await end(server, signal);
    this.#server = undefined;
    return server?.exitCode ?? null;
  }

  /** What the servers have said. */
  log(): string {
    return readFileSync(join(this.directory, 'log'), 'utf8');
  }

  /** Runs `ctr` on this node. What it prints is given byte by byte. */
  async ctr(...args: string[]): Promise<string> {
    const { stdout } = await run('ctr', args, {
      env: this.#environment,
      encoding: 'latin1',
      timeout: TIMEOUT_MS,
      killSignal: 'SIGKILL',
      maxBuffer: 64 * 1024 * 1024,
    });
    return stdout;
  }

  /**
   * Runs a container of an image to its end and gives what it printed. Its snapshot, called `id` too, stays:
   * the label keeps it from being collected with the container.
   */
  async runContainer(id: string, image: string, script: string): Promise<string> {
    const said = await this.ctr(
      'run',
      ...this.containerOptions,
      '--snapshotter-label',
      'containerd.io/gc.root=kept',
      image,
      id,
      '/bin/sh',
      '-ec',
      script,
    );
    await this.ctr('containers', 'rm', '--keep-snapshot', id);
    return said;
  }

  /** Collects garbage, what a client that was killed had a lease on included, and returns once that is done. */
  async collect(): Promise<void> {
    await this.ctr('leases', 'create', '--id', 'collect');
    const leases = (await this.ctr('leases', 'list', '--quiet')).split('\n').filter((id) => id !== '');
    for (const id of leases) await this.ctr('leases', 'rm', '--sync', id);
  }

  /** What keeps containers within the directory. Their options are those of any machine. */
  get containerOptions(): string[] {
    return ['--runc-root', this.#runc, '--fifo-dir', join(this.directory, 'fifo')];
  }

  /** Runs a command of overlite on the store, and gives its JSON. */
  async overlite(...args: string[]): Promise<unknown> {
    const options = { encoding: 'utf8', timeout: TIMEOUT_MS, maxBuffer: 64 * 1024 * 1024 } as const;
    const { stdout } = await run(process.execPath, [main, ...args, '--json', '--root', this.store], options);
    return JSON.parse(stdout);
  }

  /** Mounts a snapshot as `ctr snapshots mounts` says, for as long as `fn` runs. */
  async withSnapshot<T>(key: string, fn: (tree: string) => T | Promise<T>): Promise<T> {
    const tree = mkdtempSync(join(this.directory, 'mount-'));
    await run('sh', ['-ec', await this.ctr('snapshots', 'mounts', tree, key)]);
    try {
      return await fn(tree);
    } finally {
      await run('umount', [tree]);
      rmdirSync(tree);
    }
  }

  /** The directories of the layers of a snapshot, its own first. */
  async layersOf(key: string): Promise<string[]> {
    const command = (await this.ctr('snapshots', 'mounts', '/mnt', key)).trim();
    const [, bound] = /^mount -t bind (\S+) /.exec(command) ?? [];
    if (bound !== undefined) return [bound];
    const option = (name: string): string[] =>
      new RegExp(`[ ,]${name}=([^, ]+)`).exec(command)?.[1]?.split(':') ?? [];
    return [...option('upperdir'), ...option('lowerdir')];
  }

  /** Ends everything that belongs to this node, however it has failed, and takes away all that it left. */
  async remove(): Promise<void> {
    await end(this.#containerd, 'SIGKILL');
    await end(this.#server, 'SIGKILL');
    for (const pid of shims(this.socket)) process.kill(pid, 'SIGKILL');
    const states = join(this.#runc, this.namespace);
    for (const id of existsSync(states) ? readdirSync(states) : []) {
      await run('runc', ['--root', states, 'delete', '--force', id]).catch(() => {});
    }
    for (const at of mountsBelow(this.directory)) execFileSync('umount', ['--lazy', at], { stdio: 'pipe' });
    removeSockets(join(this.directory, 'state/io.containerd.runtime.v2.task', this.namespace));
    removeCgroups(this.cgroup);
    // What clears up after a shim does not know of another directory for runc.
    rmSync(join('/run/containerd/runc', this.cgroup), { recursive: true, force: true });
    rmSync(this.directory, { recursive: true, force: true });
  }
}

/** Whether somebody listens on a socket. */
function accepts(socket: string): Promise<boolean> {
  return new Promise((resolve) => {
    const connection = connect(socket);
    const found = (accepted: boolean): void => {
      connection.destroy();
      resolve(accepted);
    };
    connection.once('connect', () => found(true)).once('error', () => found(false));
  });
}

const ended = (child: ChildProcess): boolean => child.exitCode !== null || child.signalCode !== null;

async function end(child: ChildProcess | undefined, signal: NodeJS.Signals): Promise<void> {
  if (child === undefined || ended(child)) return;
  const exit = new Promise((resolve) => child.once('exit', resolve));
  child.kill(signal);
  await exit;
}

/** The processes that stand between a containerd at this socket and its containers. */
function shims(socket: string): number[] {
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .map(Number)
    .filter((pid) => {
      try {
        const [command = '', ...args] = readFileSync(`/proc/${pid}/cmdline`, 'utf8').split('\0');
        return command.includes('containerd-shim') && args.includes(socket);
      } catch {
        return false;
      }
    });
}

/** What is mounted below a directory, the deepest first. */
function mountsBelow(directory: string): string[] {
  return readFileSync('/proc/self/mountinfo', 'utf8')
    .split('\n')
    .map((line) => line.split(' ')[4] ?? '')
    .filter((at) => at.startsWith(`${directory}/`))
    .toReversed();
}

/** Shims listen in a directory that is the same for all of containerd. */
function removeSockets(bundles: string): void {
  for (const id of existsSync(bundles) ? readdirSync(bundles) : []) {
    const file = join(bundles, id, 'address');
    if (existsSync(file)) rmSync(readFileSync(file, 'utf8').replace('unix://', ''), { force: true });
  }
}

/** Takes away the empty cgroups that containers of a namespace were in, whichever version there is. */
function removeCgroups(namespace: string): void {
  const all = '/sys/fs/cgroup';
  for (const at of [all, ...readdirSync(all).map((controller) => join(all, controller))]) {
    const group = join(at, namespace);
    if (!existsSync(group)) continue;
    for (const { name } of readdirSync(group, { withFileTypes: true }).filter((entry) =>
      entry.isDirectory(),
    )) {
      rmdirSync(join(group, name));
    }
    rmdirSync(group);
  }
}
