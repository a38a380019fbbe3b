import type { Kind, Labels } from '../snapshot.ts';
import { type StoreOptions, labelOption, writeCommand } from './command.ts';
import { say, sayJson, shown } from './output.ts';
import { openOrMakeStore, openStore } from './store.ts';

interface Options extends StoreOptions {
  readonly label?: Labels;
  readonly volatile?: true;
}

/** `overlite prepare` */
export const prepareCommand = writeCommand(
  'prepare',
  'Make a writable snapshot, on a committed one or on nothing',
  {
    examples: ['overlite prepare workspace base', 'overlite prepare new-base --label image=debian:12'],
    note: 'Without a parent, the store is made too, if the root is not there or empty.',
  },
)
  .argument('<new-key>', 'what the new snapshot is called')
  .argument('[parent]', 'the committed snapshot that it stands on')
  .addOption(labelOption())
  .option('--volatile', 'faster, for work that can be thrown away: a crash of the machine loses it')
  .action(make('active'));

/** `overlite view` */
export const viewCommand = writeCommand('view', 'Make a read-only snapshot of a committed one', {
  examples: ['overlite view reader base', 'overlite view reader base --label for=backup'],
  note: 'Without a parent, the store is made too, if the root is not there or empty.',
})
  .argument('<new-key>', 'what the new snapshot is called')
  .argument('[parent]', 'the committed snapshot that is to be seen')
  .addOption(labelOption())
  .action(make('view'));

function make(kind: Exclude<Kind, 'committed'>) {
  return async (key: string, parent: string | undefined, options: Options): Promise<void> => {
    // A parent is in a store that is there.
    await using driver = await (parent === undefined ? openOrMakeStore(options) : openStore(options));
    const labels = options.label ?? {};
    const mounts =
      kind === 'active'
        ? await driver.prepare(key, parent, { labels, ...(options.volatile && { volatile: true }) })
        : await driver.view(key, parent, { labels });
    if (options.json === true) sayJson({ key, kind, parent: parent ?? null, mounts });
    else say(`${shown(key)} is ${kind}${parent === undefined ? '' : `, on ${shown(parent)}`}`);
  };
}
