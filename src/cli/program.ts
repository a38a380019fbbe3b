import { readFileSync } from 'node:fs';
import { Command } from 'commander';
import { escapeLines } from '../quote.ts';
import { backupCommand } from './backup.ts';
import { checkCommand } from './check.ts';
import { cleanupCommand } from './cleanup.ts';
import { checkpointCommand, commitCommand } from './commit.ts';
import { completeCommand, completionCommand } from './completion.ts';
import { demoCommand } from './demo.ts';
import { diffCommand } from './diff.ts';
import { graphCommand } from './graph.ts';
import { infoCommand } from './info.ts';
import { labelCommand } from './label.ts';
import { listCommand } from './list.ts';
import { manCommand } from './man.ts';
import { mountCommand, unmountCommand } from './mount.ts';
import { mountsCommand } from './mounts.ts';
import { prepareCommand, viewCommand } from './prepare.ts';
import { deleteCommand, removeCommand } from './remove.ts';
import { restoreCommand } from './restore.ts';
import { runCommand, shellCommand } from './run.ts';
import { serveCommand } from './serve.ts';
import { treeCommand } from './tree.ts';
import { usageCommand } from './usage.ts';

const LAST = 'Getting started:';

const groups: Readonly<Record<string, readonly Command[]>> = {
  'Create and remove:': [
    prepareCommand,
    viewCommand,
    commitCommand,
    checkpointCommand,
    removeCommand,
    deleteCommand,
    cleanupCommand,
  ],
  'Mount and run:': [runCommand, shellCommand, mountCommand, unmountCommand, mountsCommand],
  'Inspect:': [listCommand, infoCommand, treeCommand, graphCommand, diffCommand, usageCommand, labelCommand],
  'After an incident:': [checkCommand, backupCommand, restoreCommand],
  'Serve:': [serveCommand],
  [LAST]: [demoCommand, completionCommand, manCommand],
};

const manifest: unknown = JSON.parse(readFileSync(new URL('../../package.json', import.meta.url), 'utf8'));
const version =
  typeof manifest === 'object' && manifest !== null ? String(Reflect.get(manifest, 'version')) : 'unknown';

/** Errors name wrong arguments, which may be file names that a shell has put in the place of a pattern. */
const output = { writeErr: (text: string): boolean => process.stderr.write(escapeLines(text)) };

/** The whole command line: the help, the manual page and the completions are made from it. */
export const program = new Command('overlite')
  .description('Overlayfs snapshots whose metadata lives in SQLite')
  .version(version)
  .showSuggestionAfterError()
  .addHelpCommand(
    new Command('help').argument('[command]').description('Show the help of a command').helpGroup(LAST),
  )
  .addHelpText(
    'after',
    `
Run \`overlite COMMAND --help\` for options and examples. --root defaults to $OVERLITE_ROOT.

Exit status: 0 done, 1 the operation failed, 2 wrong usage, 130 stopped by Ctrl-C. check uses the exit status of fsck;
run and shell return that of the command.`,
  )
  .configureOutput(output)
  .exitOverride();

for (const [group, commands] of Object.entries(groups)) {
  for (const command of commands)
    program.addCommand(command.exitOverride().configureOutput(output).helpGroup(group));
}

program.addCommand(completeCommand.exitOverride().configureOutput(output), { hidden: true });
