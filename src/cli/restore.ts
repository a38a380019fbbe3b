import { type RestoreReport, restoreStore } from '../check/restore.ts';
import { storeCommand } from './command.ts';
import { quoteWhole } from '../quote.ts';
import { say, sayJson, shown } from './output.ts';

/** `overlite restore` */
export const restoreCommand = storeCommand(
  'restore',
  'Replace a lost or damaged database with a backup, or with what can be read of it',
  {
    examples: [
      'overlite restore --root /var/lib/overlite',
      'overlite restore --root /var/lib/overlite /backup/metadata-2030-01-31.db',
      'overlite restore --root /var/lib/overlite --salvage',
    ],
    note: `Nothing is deleted: the old database is moved to lost+found, and directories stay as they are. Nobody
may have the store open. Rows and directories that do not match afterwards are reported.`,
  },
)
  .argument('[backup]', 'the backup (default: the newest in backups/)')
  .option('--salvage', 'use what can be read of the present database instead of a backup')
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
  const counted = snapshots === 1 ? '1 snapshot was' : `${snapshots} snapshots were`;
  if (finished) say('A restoration that had been interrupted is finished.');
  else if (from === null) say(`${counted} salvaged.`);
  else say(`${counted} restored from ${shown(from)}.`);
  if (setAside !== null) say(`The old database is kept in ${shown(setAside)}.`);
  for (const { id, name, why } of lost) say(`lost: ${name === null ? `id ${id}` : quoteWhole(name)}: ${why}`);
  for (const { id, part } of journal)
    say(`not deleted: ${part === 'all' ? id : `${id}/work`}, from the journal of the backup`);
  for (const { code, message } of check.findings) say(`${code}: ${message}`);
  say('\nThe contents of the layers were not checked: overlite check does that.');
}
