import { Command } from 'commander';
import { Layout } from '../driver/layout.ts';
import { backupDatabase } from '../metadata/backup-database.ts';
import { resolve } from 'node:path';
import { jsonOption, rootOption, say, sayJson } from './store.ts';

/** `overlite backup` */
export const backupCommand = new Command('backup')
  .description('Copy the database of a store, in use or not, to a new file')
  .argument('<file>', 'the new file')
  .addOption(rootOption())
  .addOption(jsonOption())
  .addHelpText(
    'after',
    `
The layers are not in it: it is for when the database is lost and they are not.

Examples:
  $ overlite backup --root /var/lib/overlite /backup/metadata-$(date +%F).db

Exit status: 0 done, 1 the operation failed, 2 wrong usage.`,
  )
  .action(async (file: string, { root, json }: { root: string; json?: true }) => {
    await backupDatabase(new Layout(resolve(root)).database, file);
    if (json === true) sayJson({ file: resolve(file) });
    else say(`${resolve(file)} is written`);
  });
