#!/usr/bin/env node
import { isUtf8 } from 'node:buffer';
import { readFileSync } from 'node:fs';
import { inspect } from 'node:util';
import type { Command } from 'commander';
import { SnapshotError, toSnapshotError } from '../errors.ts';
import { guarded } from '../guarded.ts';
import { isSystemError } from '../linux/errno.ts';
import { escapeHidden, escapeLines, jsonText } from '../quote.ts';
import { STATUSES, type Statuses, helpOf } from './command.ts';
import { program } from './program.ts';
import { Stopped, stoppedStatus, takeSignals } from './stopping.ts';

takeSignals();
// If the reader of the errors goes away, the status still tells.
process.stderr.on('error', () => {});
process.stdout.on(
  'error',
  guarded(endUnheard, () => process.exit(1)),
);

try {
  checkArguments();
  await program.parseAsync();
  process.exitCode = stoppedStatus() ?? process.exitCode;
} catch (error) {
  process.exitCode = report(error);
}

/** Ends a command whose output cannot be written. */
function endUnheard(error: NodeJS.ErrnoException): void {
  // As if SIGPIPE had ended it.
  if (error.code === 'EPIPE') process.exit(141);
  process.stderr.write(`overlite: cannot write the output: ${error.message}\n`);
  process.exit(statusesOf(current()).failed(error));
}

/** Refuses arguments that are not UTF-8: Node replaces their bytes, and the result would name something else. */
function checkArguments(): void {
  if (!process.argv.some((argument) => argument.includes('\uFFFD'))) return;
  if (isUtf8(readFileSync('/proc/self/cmdline'))) return;
  throw new SnapshotError('INVALID_ARGUMENT', 'an argument is not UTF-8');
}

function statusesOf(command: Command | undefined): Statuses {
  return (command && helpOf(command).statuses) ?? STATUSES;
}

/** The command that is run, if it is known yet. */
function current(): Command | undefined {
  const [name = ''] = program.args;
  return program.commands.find((command) => [command.name(), ...command.aliases()].includes(name));
}

/** Prints an error in one line, and its hint. @returns the exit status */
function report(error: unknown): number {
  const command = current();
  const statuses = statusesOf(command);
  if (error instanceof Error && error.name === 'CommanderError') {
    // Help and the version end this way too; commander has already printed everything.
    if (Reflect.get(error, 'exitCode') === 0) return 0;
    return statuses.usage;
  }
  const { json = false, debug = false }: { json?: boolean; debug?: boolean } = command?.opts() ?? {};
  const known = isSystemError(error) ? toSnapshotError(error, command?.name() ?? program.name()) : error;
  const message = escapeHidden(known instanceof Error ? known.message : String(known));
  const { code, hint } = known instanceof SnapshotError ? known : { code: undefined, hint: undefined };
  if (json) {
    process.stderr.write(`${jsonText({ error: { code: code ?? null, message, hint: hint ?? null } })}\n`);
  } else {
    process.stderr.write(`overlite: ${code === undefined ? '' : `${code}: `}${message}\n`);
    if (hint !== undefined) process.stderr.write(`  hint: ${hint}\n`);
  }
  if (debug) process.stderr.write(`${escapeLines(inspect(error))}\n`);
  if (error instanceof Stopped) return error.status;
  return stoppedStatus() ?? statuses.failed(error);
}
