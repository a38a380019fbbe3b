import { spawn } from 'node:child_process';
import { waitFor } from './wait-for.ts';

/** A process that a test has started. */
export interface StartedProcess {
  /** What it has printed so far. */
  readonly printed: string;
  /** Writes to its standard input. */
  write(text: string): void;
  /** Ends its standard input and waits for its end. @returns all that it has printed */
  finish(): Promise<string>;
  /** Kills it and waits for its end. May be called more than once. */
  kill(): Promise<void>;
}

/**
 * Starts a process and waits until it has printed a text.
 *
 * @throws {Error} if it ends without having printed that
 */
export async function startProcess(
  text: string,
  command: string,
  args: readonly string[],
): Promise<StartedProcess> {
  const child = spawn(command, args, { stdio: ['pipe', 'pipe', 'inherit'] });
  const ended = new Promise<void>((resolve) => child.once('close', () => resolve()));
  let printed = '';
  child.stdout.setEncoding('utf8').on('data', (part: string) => (printed += part));
  await waitFor(`${command} to print "${text}"`, () => {
    if (printed.includes(text)) return true;
    if (child.exitCode !== null || child.signalCode !== null) {
      throw new Error(`${command} ended before it printed "${text}"`);
    }
    return false;
  });
  return {
    get printed() {
      return printed;
    },
    write: (more) => void child.stdin.write(more),
    async finish() {
      child.stdin.end();
      await ended;
      return printed;
    },
    async kill() {
      child.kill('SIGKILL');
      await ended;
    },
  };
}
