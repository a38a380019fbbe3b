#!/usr/bin/env node
import { readFileSync } from 'node:fs';
import { inspect } from 'node:util';
import { Command } from 'commander';
import { SnapshotError } from '../errors.ts';
import { backupCommand } from './backup.ts';
import { CHECK_USAGE, checkCommand, checkFailure } from './check.ts';
import { cleanupCommand } from './cleanup.ts';
import { checkpointCommand, commitCommand } from './commit.ts';
import { demoCommand } from './demo.ts';
import { infoCommand } from './info.ts';
import { labelCommand } from './label.ts';
import { listCommand } from './list.ts';
import { mountCommand, unmountCommand } from './mount.ts';
import { mountsCommand } from './mounts.ts';
import { prepareCommand, viewCommand } from './prepare.ts';
import { deleteCommand, removeCommand } from './remove.ts';
import { restoreCommand } from './restore.ts';
import { serveCommand } from './serve.ts';
import { Stopped, stoppedStatus, takeSignals } from './stopping.ts';
import { treeCommand } from './tree.ts';
import { usageCommand } from './usage.ts';

const groups: Readonly<Record<string, readonly Command[]>> = {
  'Make and take away:': [
    prepareCommand,
    viewCommand,
    commitCommand,
    checkpointCommand,
    removeCommand,
    deleteCommand,
    cleanupCommand,
  ],
  'Mount:': [mountCommand, unmountCommand, mountsCommand],
  'Look:': [listCommand, infoCommand, treeCommand, usageCommand, labelCommand],
  'After an incident:': [checkCommand, backupCommand, restoreCommand],
  'Serve:': [serveCommand],
  'Try:': [demoCommand],
};

const manifest: unknown = JSON.parse(readFileSync(new URL('../../package.json', import.meta.url), 'utf8'));
const version =
  typeof manifest === 'object' && manifest !== null ? String(Reflect.get(manifest, 'version')) : 'unknown';

const program = new Command('overlite')
  .description('Overlayfs snapshots whose metadata lives in SQLite')
  .version(version)
  .showSuggestionAfterError()
  .addHelpText(
    'after',
    `
Every command tells its options and examples with --help. OVERLITE_ROOT stands for --root.

Exit status: 0 done, 1 the operation failed, 2 wrong usage, 130 stopped by Ctrl-C. check has those of fsck.`,
  )
  .exitOverride();

for (const [group, commands] of Object.entries(groups)) {
  for (const command of commands) program.addCommand(command.exitOverride().helpGroup(group));
}

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
  return program.commands.find((command) => command.name() === program.args[0]);
}

/** Says what went wrong, in one line and a hint. @returns the exit status */
function report(error: unknown): number {
  const isCheck = current() === checkCommand;
  if (error instanceof Error && error.name === 'CommanderError') {
    // Help and the version end this way too; commander has already printed everything.
    if (Reflect.get(error, 'exitCode') === 0) return 0;
    return isCheck ? CHECK_USAGE : 2;
  }
  const { json = false, debug = false }: { json?: boolean; debug?: boolean } = current()?.opts() ?? {};
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
  return stoppedStatus() ?? (isCheck ? checkFailure(error) : 1);
}
