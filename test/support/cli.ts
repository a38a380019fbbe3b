import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, symlinkSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { expect } from 'vitest';
import { test as base } from './fixtures.ts';
import { queryShell } from './shell.ts';

/** The command line as it was built. */
export const main = fileURLToPath(new URL('../../dist/cli/main.js', import.meta.url));

/** What a process ended with. */
interface Ended {
  /** Its exit status; null if a signal ended it. */
  readonly status: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

/** A command that runs while the test goes on. It is killed after the test. */
export interface Running {
  readonly process: ChildProcess;
  readonly pid: number;
  /** What it has printed so far. */
  readonly stdout: () => string;
  readonly stderr: () => string;
  readonly hasEnded: () => boolean;
  /** Settles when it has ended, even if processes that it started go on. */
  readonly exited: Promise<unknown>;
  /** Waits until it has ended and its output is closed, also by processes that it started. */
  readonly ended: () => Promise<Ended>;
}

/** How a command is started. */
interface StartOptions {
  /** In a process group of its own, as a shell starts it in a terminal. */
  readonly group?: boolean;
  /** More variables of its environment. */
  readonly env?: Record<string, string>;
  /** Another program, with arguments, that starts it. */
  readonly through?: readonly string[];
}

/** The command line, as a process. */
export interface CommandLine {
  /** The root of the store that commands work on (default: that of `example`). `test.override` sets another. */
  storeRoot: string;
  /** More variables of the environment of commands. */
  variables: Record<string, string>;
  /** The environment of commands. `overlite` is in its PATH. */
  env: NodeJS.ProcessEnv;
  /** Runs a command. */
  overlite: (...args: string[]) => Ended;
  /** Runs a command that must succeed and write nothing to standard error, and gives what it prints. */
  printed: (...args: string[]) => string;
  /** Runs a command with --json in the same way, and gives the value that it prints. */
  json: (command: string, ...args: string[]) => unknown;
  /** Runs commands side by side. */
  together: (
    ...commands: readonly (readonly string[])[]
  ) => Promise<(Ended & { readonly args: readonly string[] })[]>;
  /** Runs a script in bash, in the directory `place`. `overlite` is a command there. */
  bash: (script: string) => Ended;
  /** Runs a command line as an ordinary user, who can reach the checkout. Needs root and `setpriv`. */
  asUser: (commandLine: string) => Ended;
  /** Runs a command line in a pseudo-terminal, and gives what it shows. Needs `script`. */
  inTerminal: (commandLine: string, env?: Record<string, string>) => string;
  /** The rows of a query, which the `sqlite3` shell reads in the database of `storeRoot`. */
  query: (sql: string) => unknown[];
  /** The snapshots in that database. */
  rows: () => unknown[];
  /** Starts a command. */
  start: (args: readonly string[], options?: StartOptions) => Running;
}

const encoding = 'utf8';

/** The shared `test`, with the command line. */
export const test = base.extend<CommandLine>({
  storeRoot: async ({ example }, use) => use(example.root),
  variables: {},
  env: async ({ place, storeRoot, variables }, use) => {
    const bin = join(place, 'bin');
    mkdirSync(bin);
    symlinkSync(main, join(bin, 'overlite'));
    const path = `${bin}:${dirname(process.execPath)}:${process.env['PATH']}`;
    await use({ ...process.env, PATH: path, OVERLITE_ROOT: storeRoot, ...variables });
  },
  overlite: async ({ env }, use) =>
    use((...args) => {
      const { status, stdout, stderr } = spawnSync(process.execPath, [main, ...args], { encoding, env });
      return { status, stdout, stderr };
    }),
  printed: async ({ overlite }, use) =>
    use((...args) => {
      const { status, stdout, stderr } = overlite(...args);
      expect({ args, status, stderr }).toEqual({ args, status: 0, stderr: '' });
      return stdout;
    }),
  json: async ({ printed }, use) =>
    use((command, ...args) => JSON.parse(printed(command, '--json', ...args)) as unknown),
  together: async ({ start }, use) =>
    use((...commands) =>
      Promise.all(
        commands.map(async (args) => {
          const { status, stdout, stderr } = await start(args).ended();
          return { args, status, stdout, stderr };
        }),
      ),
    ),
  bash: async ({ place, env }, use) =>
    use((script) => {
      const { status, stdout, stderr } = spawnSync('bash', ['-c', script], { encoding, env, cwd: place });
      return { status, stdout, stderr };
    }),
  asUser: async ({ bash, checkout }, use) =>
    use((commandLine) =>
      bash(`setpriv --reuid=1234 --regid=1234 --clear-groups ${checkout}/dist/cli/main.js ${commandLine}`),
    ),
  inTerminal: async ({ env }, use) =>
    use((commandLine, more = {}) => {
      const { NO_COLOR: _1, FORCE_COLOR: _2, CI: _3, ...rest } = env;
      const { stdout } = spawnSync('script', ['-qec', `overlite ${commandLine}`, '/dev/null'], {
        encoding,
        env: { ...rest, TERM: 'xterm', ...more },
      });
      return stdout.replaceAll('\r\n', '\n');
    }),
  query: async ({ storeRoot }, use) => use((sql) => queryShell(join(storeRoot, 'metadata.db'), sql)),
  rows: async ({ query }, use) =>
    use(() => query('select id, name, kind, parent_id from snapshot order by id')),
  start: async ({ env, undo }, use) =>
    use((args, { group = false, env: more = {}, through = [] } = {}) => {
      const [command = '', ...rest] = [...through, process.execPath, main, ...args];
      const running = follow(
        spawn(command, rest, {
          detached: group,
          stdio: ['ignore', 'pipe', 'pipe'],
          env: { ...env, ...more },
        }),
      );
      undo(() => {
        running.process.kill('SIGKILL');
        return running.exited;
      });
      return running;
    }),
});

/** Collects what a process prints. */
function follow(child: ChildProcess): Running {
  let stdout = '';
  let stderr = '';
  child.stdout?.setEncoding(encoding).on('data', (part: string) => (stdout += part));
  child.stderr?.setEncoding(encoding).on('data', (part: string) => (stderr += part));
  const exited = once(child, 'exit');
  const closed = once(child, 'close') as Promise<[number | null]>;
  return {
    process: child,
    pid: child.pid ?? 0,
    stdout: () => stdout,
    stderr: () => stderr,
    hasEnded: () => child.exitCode !== null || child.signalCode !== null,
    exited,
    async ended() {
      const [status] = await closed;
      return { status, stdout, stderr };
    },
  };
}
