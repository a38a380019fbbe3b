import type { Kind, Labels } from '../snapshot.ts';
import { type StoreOptions, labelOption, writeCommand } from './command.ts';
import { say, sayJson, shown } from './output.ts';
import { openOrCreateStore, openStore } from './store.ts';

interface MakeCommandOptions extends StoreOptions {
  readonly label?: Labels;
  readonly volatile?: true;
}

/** `overlite prepare` */
export const prepareCommand = writeCommand(
  'prepare',
  'Create a writable snapshot, on a committed one or empty',
  {
    examples: ['overlite prepare workspace base', 'overlite prepare new-base --label image=debian:12'],
    note: 'Without a parent, this also creates the store if the root is missing or empty.',
  },
)
  .argument('<new-key>', 'the key of the new snapshot')
  .argument('[parent]', 'the committed snapshot to build on (default: none)')
  .addOption(labelOption())
  .option('--volatile', 'do not sync what is written: faster, but a crash of the machine loses the snapshot')
  .action(make('active'));

/** `overlite view` */
export const viewCommand = writeCommand('view', 'Create a read-only view of a committed snapshot', {
  examples: ['overlite view reader base', 'overlite view reader base --label for=backup'],
  note: 'Without a parent, this also creates the store if the root is missing or empty.',
})
  .argument('<new-key>', 'the key of the new snapshot')
  .argument('[parent]', 'the committed snapshot to view (default: none)')
  .addOption(labelOption())
  .action(make('view'));

function make(kind: Exclude<Kind, 'committed'>) {
  return async (key: string, parent: string | undefined, options: MakeCommandOptions): Promise<void> => {
    // If there is a parent, there is a store.
    await using driver = await (parent === undefined ? openOrCreateStore(options) : openStore(options));
    const labels = options.label ?? {};
    const mounts =
      kind === 'active'
        ? await driver.prepare(key, parent, { labels, ...(options.volatile && { volatile: true }) })
        : await driver.view(key, parent, { labels });
    if (options.json === true) sayJson({ key, kind, parent: parent ?? null, mounts });
    else say(`${shown(key)} is ${kind}${parent === undefined ? '' : `, on ${shown(parent)}`}`);
  };
}
