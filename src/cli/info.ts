import { type StoreOptions, storeCommand } from './command.ts';
import { escapeHidden } from '../quote.ts';
import { paintKind, sayJson, sayPairs, shown, toJson } from './output.ts';
import { openStoreToRead, usageOf } from './store.ts';
import { age, bytes } from './units.ts';

/** `overlite info` */
export const infoCommand = storeCommand('info', 'Show everything about a snapshot', {
  examples: ['overlite info base', 'overlite info workspace --json'],
})
  .argument('<key-or-name>', 'a snapshot of any kind')
  .action(async (name: string, options: StoreOptions) => {
    await using driver = await openStoreToRead(options);
    const info = await driver.stat(name);
    // If the layer is lost, `overlite check` reports it.
    const usage = (await usageOf(driver, name)) ?? null;
    const chain = (await driver.chain(name)).map((ancestor) => ancestor.name);
    const children = (await driver.children(name)).map((child) => child.name);
    if (options.json === true) {
      sayJson({ ...toJson(info), usage, chain, children });
      return;
    }
    const { kind, labels, created, updated, id, directory, seal, inUse, volatile } = info;
    const time = (when: Date): string => `${when.toISOString()} (${age(when)} ago)`;
    sayPairs([
      ['name', shown(name)],
      ['kind', `${paintKind(kind)}${volatile ? ', volatile' : ''}`],
      ['chain', chain.length === 0 ? '-' : chain.map(shown).join(' < ')],
      ['children', children.length === 0 ? '-' : children.map(shown).join(' ')],
      ['usage', usage === null ? '-' : `${usage.inodes} inodes, ${bytes(usage.size)}`],
      ['created', time(created)],
      ['updated', time(updated)],
      ['directory', directory === null ? '-' : shown(directory)],
      ['id', String(id)],
      ['seal', seal === null ? '-' : escapeHidden(seal)],
      ...(inUse === true ? ([['in use', 'its layer was in use when it was committed']] as const) : []),
      ...Object.entries(labels).map(([key, value]) => ['label', `${shown(key)}=${shown(value)}`] as const),
    ]);
  });
