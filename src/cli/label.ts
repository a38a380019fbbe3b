import { InvalidArgumentError } from 'commander';
import type { Labels } from '../snapshot.ts';
import { type StoreOptions, writeCommand } from './command.ts';
import { say, sayJson, shown } from './output.ts';
import { lookAtStore, openStore } from './store.ts';

/** `overlite label` */
export const labelCommand = writeCommand('label', 'Show or change the labels of a snapshot', {
  examples: ['overlite label base', 'overlite label base image=debian:12 draft-'],
  note: 'Labels that are not named stay as they are. Without changes, the labels are shown.',
})
  .argument('<key-or-name>', 'a snapshot of any kind')
  .argument('[change...]', 'key=value sets a label, key- or key= takes it away', toChanges)
  .option('--replace', 'take away all that are not named')
  .action(async (name: string, given: Labels | [], options: StoreOptions & { replace?: true }) => {
    // Without any, there is an empty array.
    const labels = Array.isArray(given) ? {} : given;
    const looks = Array.isArray(given) && options.replace !== true;
    await using driver = await (looks ? lookAtStore(options) : openStore(options));
    const paths = Object.keys(labels).map((key) => `labels.${key}`);
    const info = looks
      ? await driver.stat(name)
      : await driver.update(name, { labels }, options.replace === true ? undefined : paths);
    if (options.json === true) sayJson(info.labels);
    else for (const [key, value] of Object.entries(info.labels)) say(`${shown(key)}=${shown(value)}`);
  });

/** Reads one change more. */
function toChanges(text: string, before: Labels | undefined): Labels {
  const equals = text.indexOf('=');
  if (equals > 0) return { ...before, [text.slice(0, equals)]: text.slice(equals + 1) };
  if (equals < 0 && text.length > 1 && text.endsWith('-')) return { ...before, [text.slice(0, -1)]: '' };
  throw new InvalidArgumentError('It is neither key=value nor key-.');
}
