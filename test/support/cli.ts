import { spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { expect } from 'vitest';

/** The command line as it was built. */
export const main = fileURLToPath(new URL('../../dist/cli/main.js', import.meta.url));

/** What came of a command. */
interface Ended {
  readonly status: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

/** The command line on a store, as a process. */
export interface CommandLine {
  /** Runs a command with pipes. */
  readonly overlite: (...args: string[]) => Ended;
  /** What a command prints that succeeds without a complaint. */
  readonly printed: (...args: string[]) => string;
  /** What a command prints as JSON. */
  readonly json: (command: string, ...args: string[]) => unknown;
  /** Runs a command line in a pseudo-terminal, and gives what is seen there. */
  readonly inTerminal: (command: string, env?: Record<string, string>) => string;
}

/** The command line on the store of the test that runs, with more variables in its environment. */
export function commandLine(
  store: { readonly root: string },
  more: () => Record<string, string> = () => ({}),
): CommandLine {
  const environment = (): NodeJS.ProcessEnv => ({ ...process.env, OVERLITE_ROOT: store.root, ...more() });
  const overlite = (...args: string[]): Ended => {
    const options = { encoding: 'utf8', env: environment() } as const;
    const { status, stdout, stderr } = spawnSync(process.execPath, [main, ...args], options);
    return { status, stdout, stderr };
  };
  const printed = (...args: string[]): string => {
    const { status, stdout, stderr } = overlite(...args);
    expect({ status, stderr }).toEqual({ status: 0, stderr: '' });
    return stdout;
  };
  return {
    overlite,
    printed,
    json: (command, ...args) => JSON.parse(printed(command, '--json', ...args)),
    inTerminal: (command, env = {}) => {
      const { NO_COLOR: _1, FORCE_COLOR: _2, CI: _3, ...rest } = environment();
      const { stdout } = spawnSync(
        'script',
        ['-qec', `${process.execPath} ${main} ${command}`, '/dev/null'],
        {
          encoding: 'utf8',
          env: { ...rest, TERM: 'xterm', ...env },
        },
      );
      return stdout.replaceAll('\r\n', '\n');
    },
  };
}
