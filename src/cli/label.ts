import { SnapshotError } from '../errors.ts';
import { quote } from '../names.ts';
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
  .argument('[change...]', 'key=value sets a label, key- or key= takes it away')
  .option('--replace', 'take away all that are not named')
  .action(async (name: string, changes: string[], options: StoreOptions & { replace?: true }) => {
    const labels = toLabels(changes);
    const looks = changes.length === 0 && options.replace !== true;
    await using driver = await (looks ? lookAtStore(options) : openStore(options));
    const paths = Object.keys(labels).map((key) => `labels.${key}`);
    const info = looks
      ? await driver.stat(name)
      : await driver.update(name, { labels }, options.replace === true ? undefined : paths);
    if (options.json === true) sayJson(info.labels);
    else for (const [key, value] of Object.entries(info.labels)) say(`${shown(key)}=${shown(value)}`);
  });

function toLabels(changes: readonly string[]): Labels {
  return Object.fromEntries(
    changes.map((change) => {
      const equals = change.indexOf('=');
      if (equals > 0) return [change.slice(0, equals), change.slice(equals + 1)];
      if (equals < 0 && change.length > 1 && change.endsWith('-')) return [change.slice(0, -1), ''];
      throw new SnapshotError('INVALID_ARGUMENT', `${quote(change)} is neither key=value nor key-`);
    }),
  );
}
