#!/usr/bin/env node
import { inspect } from 'node:util';
import type { Command } from 'commander';
import { SnapshotError } from '../errors.ts';
import { STATUSES, helpOf } from './command.ts';
import { program } from './program.ts';
import { Stopped, stoppedStatus, takeSignals } from './stopping.ts';

takeSignals();
process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  // As if the signal had ended it that tells of a closed pipe.
  if (error.code === 'EPIPE') process.exit(141);
  process.stderr.write(`overlite: cannot write the output: ${error.message}\n`);
  process.exit(1);
});

try {
  await program.parseAsync();
  process.exitCode = stoppedStatus() ?? process.exitCode;
} catch (error) {
  process.exitCode = report(error);
}

/** The command that is run, as far as it is known. */
function current(): Command | undefined {
  const [name = ''] = program.args;
  return program.commands.find((command) => [command.name(), ...command.aliases()].includes(name));
}

/** Says what went wrong, in one line and a hint. @returns the exit status */
function report(error: unknown): number {
  const command = current();
  const statuses = (command && helpOf(command).statuses) ?? STATUSES;
  if (error instanceof Error && error.name === 'CommanderError') {
    // Help and the version end this way too; commander has already printed everything.
    if (Reflect.get(error, 'exitCode') === 0) return 0;
    return statuses.usage;
  }
  const { json = false, debug = false }: { json?: boolean; debug?: boolean } = command?.opts() ?? {};
  const message = error instanceof Error ? error.message : String(error);
  const { code, hint } = error instanceof SnapshotError ? error : { code: undefined, hint: undefined };
  if (json) {
    process.stderr.write(
      `${JSON.stringify({ error: { code: code ?? null, message, hint: hint ?? null } })}\n`,
    );
  } else {
    process.stderr.write(`overlite: ${code === undefined ? '' : `${code}: `}${message}\n`);
    if (hint !== undefined) process.stderr.write(`  hint: ${hint}\n`);
  }
  if (debug) process.stderr.write(`${inspect(error)}\n`);
  if (error instanceof Stopped) return error.status;
  return stoppedStatus() ?? statuses.failed(error);
}
