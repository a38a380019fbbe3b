import { existsSync } from 'node:fs';
import type { OverlayDriver } from '../driver/driver.ts';
import type { Info, RemoveResult } from '../snapshot.ts';
import { type StoreOptions, writeCommand } from './command.ts';
import { say, sayJson, shown } from './output.ts';
import { openStore } from './store.ts';

/** `overlite remove` */
export const removeCommand = writeCommand(
  'remove',
  'Remove active snapshots and views, with their contents',
  {
    examples: ['overlite remove workspace', 'overlite remove reader-1 reader-2'],
    note: 'Several are removed together: all of them or none.',
  },
)
  .argument('<key...>', 'active snapshots and views')
  .action((keys: string[], options: StoreOptions) => removeSnapshots(keys, options, 'remove'));

/** `overlite delete` */
export const deleteCommand = writeCommand('delete', 'Delete committed snapshots that have no children', {
  examples: ['overlite delete release', 'overlite delete release-2 release-1'],
  note: 'Several are deleted together, in the order given: all of them or none.',
})
  .argument('<name...>', 'committed snapshots, children before their parents')
  .action((names: string[], options: StoreOptions) => removeSnapshots(names, options, 'delete'));

async function removeSnapshots(
  names: readonly string[],
  options: StoreOptions,
  verb: 'remove' | 'delete',
): Promise<void> {
  await using driver = await openStore(options);
  const results = await removeAll(driver, names, verb);
  if (options.json === true) {
    sayJson(results.map(([name, { deferred = null }]) => ({ name, deferred })));
    return;
  }
  for (const [name, { deferred }] of results) {
    say(`${shown(name)} is ${verb}d`);
    if (deferred !== undefined) say(`  its directory stays until a cleanup: ${deferred}`);
  }
}

async function removeAll(
  driver: OverlayDriver,
  names: readonly string[],
  verb: 'remove' | 'delete',
): Promise<(readonly [string, RemoveResult])[]> {
  const [first = '', ...others] = names;
  if (others.length === 0) return [[first, await driver[verb](first)]];
  const found: Info[] = [];
  for (const name of names) found.push(await driver.stat(name));
  await driver.transaction((tx) => {
    for (const name of names) tx[verb](name);
  });
  const left = found.some(({ directory }) => directory !== null && existsSync(directory));
  const reasons = new Map(
    left ? (await driver.cleanup()).deferred.map(({ path, reason }) => [path, reason]) : [],
  );
  return found.map(({ name, directory }) => {
    const deferred = reasons.get(directory ?? '');
    return [name, deferred === undefined ? {} : { deferred }] as const;
  });
}
