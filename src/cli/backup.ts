import { resolve } from 'node:path';
import { Layout } from '../layers/layout.ts';
import { backupDatabase } from '../metadata/backup/backup.ts';
import { storeCommand } from './command.ts';
import { say, sayJson, shown } from './output.ts';
import { withBar } from './progress.ts';
import { stopSignal } from './stopping.ts';
import { bytes } from './units.ts';

/** `overlite backup` */
export const backupCommand = storeCommand(
  'backup',
  'Copy the database of a store, in use or not, to a new file',
  {
    examples: [
      'overlite backup --root /var/lib/overlite /backup/metadata.db',
      'overlite backup --root /var/lib/overlite "/backup/metadata-$(date +%F).db"',
    ],
    note: 'The copy does not hold the layers: it is for a store that has lost its database but not its layers.',
  },
)
  .argument('<file>', 'the new file')
  .action(async (file: string, { root, json }: { root: string; json?: true }) => {
    const { database } = new Layout(resolve(root));
    await withBar((onProgress) => backupDatabase(database, file, { signal: stopSignal, onProgress }), {
      doing: 'copying',
      unit: bytes,
    });
    if (json === true) sayJson({ file: resolve(file) });
    else say(`${shown(resolve(file))} is written`);
  });
