#!/usr/bin/env node
import { readFileSync } from 'node:fs';
import { Command } from 'commander';
import { SnapshotError } from '../errors.ts';
import { backupCommand } from './backup.ts';
import { CHECK_USAGE, checkCommand, checkFailure } from './check.ts';
import { demoCommand } from './demo.ts';
import { restoreCommand } from './restore.ts';

const manifest: unknown = JSON.parse(readFileSync(new URL('../../package.json', import.meta.url), 'utf8'));
const version =
  typeof manifest === 'object' && manifest !== null ? String(Reflect.get(manifest, 'version')) : 'unknown';

const program = new Command('overlite')
  .description('Overlayfs snapshots whose metadata lives in SQLite')
  .version(version)
  .addCommand(checkCommand)
  .addCommand(backupCommand)
  .addCommand(restoreCommand)
  .addCommand(demoCommand)
  .showSuggestionAfterError()
  .addHelpText('after', '\nExit status: 0 done, 1 the operation failed, 2 wrong usage.')
  .exitOverride();

for (const command of [program, ...program.commands]) command.exitOverride();

try {
  await program.parseAsync();
} catch (error) {
  process.exitCode = report(error);
}

/** Whether it is the check that is run, which has other exit statuses than all others. */
function isCheck(): boolean {
  return program.args[0] === 'check';
}

/** Says what went wrong, in one line and a hint. @returns the exit status */
function report(error: unknown): number {
  if (error instanceof Error && error.name === 'CommanderError') {
    // Help and the version end this way too; commander has already printed everything.
    if (Reflect.get(error, 'exitCode') === 0) return 0;
    return isCheck() ? CHECK_USAGE : 2;
  }
  if (error instanceof SnapshotError) {
    process.stderr.write(`overlite: ${error.code}: ${error.message}\n`);
    if (error.hint !== undefined) process.stderr.write(`  hint: ${error.hint}\n`);
    return isCheck() ? checkFailure(error) : 1;
  }
  process.stderr.write(`overlite: ${error instanceof Error ? error.message : String(error)}\n`);
  return isCheck() ? checkFailure(error) : 1;
}
