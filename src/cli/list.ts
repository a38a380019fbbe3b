import { Option } from 'commander';
import type { OverlayDriver } from '../driver/driver.ts';
import type { Info, Kind, Usage } from '../snapshot.ts';
import { type StoreOptions, storeCommand } from './command.ts';
import { paintKind, sayJsonArray, sayTable, shown, toJson } from './output.ts';
import { openStoreToRead, usageOf } from './store.ts';
import { age, bytes } from './units.ts';

interface ListCommandOptions extends StoreOptions {
  readonly kind?: Kind;
}

/** `overlite list` */
export const listCommand = storeCommand('list', 'List snapshots, the oldest first', {
  examples: ['overlite list', `overlite list --kind committed 'labels.image~=^debian' --json`],
  note: `Filters have the syntax of containerd: commas within one mean "and", several filters mean "or".`,
})
  .alias('ls')
  .argument('[filter...]', 'for example name==base, parent==base, kind==active, labels.image')
  .addOption(
    new Option('--kind <kind>', 'only snapshots of this kind').choices(['active', 'view', 'committed']),
  )
  .action(async (filters: string[], options: ListCommandOptions) => {
    await using driver = await openStoreToRead(options);
    if (options.json === true) await sayJsonArray(asJson(driver, filters, options));
    else await show(driver, filters, options);
  });

async function* each(
  driver: OverlayDriver,
  filters: readonly string[],
  { kind }: ListCommandOptions,
): AsyncGenerator<[Info, Usage | null]> {
  for await (const info of driver.snapshots(...filters)) {
    if (kind !== undefined && info.kind !== kind) continue;
    // The usage of an active snapshot takes a walk over its layer.
    const usage = info.kind === 'active' ? null : await usageOf(driver, info.name);
    if (usage !== undefined) yield [info, usage];
  }
}

async function* asJson(...of: Parameters<typeof each>): AsyncGenerator<object> {
  for await (const [info, usage] of each(...of)) yield { ...toJson(info), usage };
}

async function show(...of: Parameters<typeof each>): Promise<void> {
  const rows: string[][] = [];
  const now = Date.now();
  for await (const [{ name, kind, parent, created }, usage] of each(...of)) {
    rows.push([
      shown(name),
      paintKind(kind),
      parent === null ? '-' : shown(parent),
      usage === null ? '-' : bytes(usage.size),
      usage === null ? '-' : String(usage.inodes),
      age(created, now),
    ]);
  }
  sayTable(['NAME', 'KIND', 'PARENT', '>SIZE', '>INODES', '>AGE'], rows);
}
