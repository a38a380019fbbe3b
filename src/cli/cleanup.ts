import { type StoreOptions, writeCommand } from './command.ts';
import { say, sayJson, shown } from './output.ts';
import { withBar } from './progress.ts';
import { stopSignal } from './stopping.ts';
import { openStore } from './store.ts';

/** `overlite cleanup` */
export const cleanupCommand = writeCommand(
  'cleanup',
  'Delete the directories of removed snapshots that are still there',
  {
    examples: ['overlite cleanup', 'overlite cleanup --json'],
    note: 'What is still in use stays, and is told with the reason.',
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
