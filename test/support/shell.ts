import { spawnSync } from 'node:child_process';

/** Whether there is a `sqlite3` shell on this machine. */
export const hasShell = spawnSync('sqlite3', ['-version']).status === 0;

/** A line that the shell wrote on standard error. */
interface ShellError {
  /** The line of the script that failed, the first being 1. */
  readonly line: number;
  readonly message: string;
}

/** What came of a script. */
export interface ShellResult {
  readonly out: string;
  readonly errors: readonly ShellError[];
}

/**
 * Runs a script of SQL and dot commands in the `sqlite3` shell, as an operator would type it. An error ends
 * its line of the script, not the script.
 *
 * @throws {Error} if the shell does not end within ten minutes, or says something that is not understood
 */
export function runShell(file: string, script: string): ShellResult {
  // Nothing here is to outlive the machine, and syncing is most of the time a short script takes.
  const options = ['-batch', '-init', '/dev/null', '-cmd', 'pragma synchronous = off'];
  const { stdout, stderr, error } = spawnSync('sqlite3', [...options, file], {
    input: script,
    encoding: 'utf8',
    timeout: 600_000,
    killSignal: 'SIGKILL',
    maxBuffer: 64 * 1024 * 1024,
  });
  if (error !== undefined) throw error;
  const errors = stderr
    .split('\n')
    .filter((line) => line !== '')
    .map((text): ShellError => {
      const [, line, message] = /^Runtime error near line (\d+): (.*)$/.exec(text) ?? [];
      if (line === undefined || message === undefined) throw new Error(`the shell says: ${stderr}`);
      return { line: Number(line), message };
    });
  return { out: stdout, errors };
}

/**
 * Runs a script that nothing may be wrong with.
 *
 * @throws {Error} with the first error
 */
export function mustRun(file: string, script: string): string {
  const { out, errors } = runShell(file, script);
  const [first] = errors;
  if (first !== undefined) throw new Error(`line ${first.line}: ${first.message}`);
  return out;
}

/** The rows of a query, read in the shell. The caller knows their type. */
export function queryShell<Row extends Record<string, string | number | null>>(
  file: string,
  sql: string,
): Row[] {
  const out = mustRun(file, `.mode json\n${sql};\n`);
  return out === '' ? [] : (JSON.parse(out) as Row[]);
}
