import { type RestoreReport, restoreStore } from '../check/restore.ts';
import { storeCommand } from './command.ts';
import { quoteWhole } from '../quote.ts';
import { say, sayJson } from './output.ts';

/** `overlite restore` */
export const restoreCommand = storeCommand(
  'restore',
  'Put a backup in the place of a lost or damaged database, or what can be read of that',
  {
    examples: [
      'overlite restore --root /var/lib/overlite',
      'overlite restore --root /var/lib/overlite /backup/metadata-2030-01-31.db',
      'overlite restore --root /var/lib/overlite --salvage',
    ],
    note: `Nothing is deleted: the old database goes to lost+found, and directories stay as they are. Nobody may
have the store open. What does not fit together afterwards is reported.`,
  },
)
  .argument('[backup]', 'the backup; the newest in backups/ unless given')
  .option('--salvage', 'use no backup, but what can be read of the database that is there')
  .action(
    async (
      from: string | undefined,
      { root, json, salvage }: { root: string; json?: true; salvage?: true },
    ) => {
      const options = { ...(from !== undefined && { from }), ...(salvage === true && { salvage }) };
      const report = await restoreStore(root, options);
      if (json === true) sayJson(report);
      else show(report);
    },
  );

function show({ from, setAside, snapshots, lost, journal, finished, check }: RestoreReport): void {
  if (finished) say('A restoration that had been interrupted is finished.');
  else if (from === null) say(`${snapshots} snapshots were salvaged.`);
  else say(`${snapshots} snapshots were restored from ${from}.`);
  if (setAside !== null) say(`The old database is kept in ${setAside}.`);
  for (const { id, name, why } of lost) say(`lost: ${name === null ? `id ${id}` : quoteWhole(name)}: ${why}`);
  for (const { id, part } of journal)
    say(`not deleted: ${part === 'all' ? id : `${id}/work`}, of the backup's journal`);
  for (const { code, message } of check.findings) say(`${code}: ${message}`);
  say(`\nWhat directories hold was not looked at: overlite check does that.`);
}
