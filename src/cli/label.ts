import { InvalidArgumentError } from 'commander';
import type { Labels } from '../snapshot.ts';
import { type StoreOptions, writeCommand } from './command.ts';
import { say, sayJson, shown } from './output.ts';
import { openStoreToRead, openStore } from './store.ts';

/** `overlite label` */
export const labelCommand = writeCommand('label', 'Show or change the labels of a snapshot', {
  examples: ['overlite label base', 'overlite label base image=debian:12 draft-'],
  note: 'Labels that are not named stay as they are. Without changes, the labels are printed.',
})
  .argument('<key-or-name>', 'a snapshot of any kind')
  .argument('[change...]', 'key=value sets a label, key- or key= removes it', toChanges)
  .option('--replace', 'remove all labels that are not named')
  .action(async (name: string, given: Labels | [], options: StoreOptions & { replace?: true }) => {
    // commander passes an empty array if no change is given.
    const labels = Array.isArray(given) ? {} : given;
    const onlyReads = Array.isArray(given) && options.replace !== true;
    await using driver = await (onlyReads ? openStoreToRead(options) : openStore(options));
    const paths = Object.keys(labels).map((key) => `labels.${key}`);
    const info = onlyReads
      ? await driver.stat(name)
      : await driver.update(name, { labels }, options.replace === true ? undefined : paths);
    if (options.json === true) sayJson(info.labels);
    else for (const [key, value] of Object.entries(info.labels)) say(`${shown(key)}=${shown(value)}`);
  });

/** Adds one more change. */
function toChanges(text: string, before: Labels | undefined): Labels {
  const equals = text.indexOf('=');
  if (equals > 0) return { ...before, [text.slice(0, equals)]: text.slice(equals + 1) };
  if (equals < 0 && text.length > 1 && text.endsWith('-')) return { ...before, [text.slice(0, -1)]: '' };
  throw new InvalidArgumentError('It is neither key=value nor key-.');
}
