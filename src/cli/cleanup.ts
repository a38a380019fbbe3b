import { type StoreOptions, writeCommand } from './command.ts';
import { say, sayJson, shown } from './output.ts';
import { withBar } from './progress.ts';
import { stopSignal } from './stopping.ts';
import { openStore } from './store.ts';

/** `overlite cleanup` */
export const cleanupCommand = writeCommand(
  'cleanup',
  'Delete the directories that removed snapshots have left',
  {
    examples: ['overlite cleanup', 'overlite cleanup --json'],
    note: 'A directory that is still in use stays, and the reason is printed.',
  },
).action(async (options: StoreOptions) => {
  await using driver = await openStore(options, { asyncRemove: true });
  const result = await withBar((onProgress) => driver.cleanup({ signal: stopSignal, onProgress }), {
    doing: 'deleting',
  });
  if (options.json === true) {
    sayJson(result);
    return;
  }
  say(`${result.removed} removed, ${result.deferred.length} still in use`);
  for (const { path, reason } of result.deferred) say(`  ${shown(path)}: ${reason}`);
});
