import type { OverlayDriver } from '../driver/driver.ts';
import type { Info, Usage } from '../snapshot.ts';
import { type StoreOptions, storeCommand } from './command.ts';
import { paintKind, sayJson, sayTable, shown } from './output.ts';
import { lookAtStore, usageOf } from './store.ts';
import { bytes } from './units.ts';

/** What a snapshot costs. */
interface Cost {
  readonly name: string;
  readonly kind: Info['kind'];
  /** What its own layer holds. */
  readonly own: Usage;
  /** What it and all that it stands on hold. */
  readonly chain: Usage;
  /** What removing it would free: nothing as long as others stand on it. */
  readonly frees: Usage;
  /** What removing it and all that descends from it would free. */
  readonly freesWithDescendants: Usage;
}

const NOTHING: Usage = { inodes: 0, size: 0 };

/** `overlite usage` */
export const usageCommand = storeCommand(
  'usage',
  'Tell what snapshots cost, and what removing them would free',
  {
    examples: ['overlite usage', 'overlite usage base workspace --json'],
    note: 'Nothing is freed by a snapshot that others stand on, as long as they do.',
  },
)
  .argument('[key-or-name...]', 'only these snapshots')
  .action(async (names: string[], options: StoreOptions) => {
    await using driver = await lookAtStore(options);
    const costs = await costsOf(driver, names);
    if (options.json === true) {
      sayJson(costs);
      return;
    }
    sayTable(
      ['NAME', 'KIND', '>OWN', '>INODES', '>WITH PARENTS', '>FREES', '>WITH DESCENDANTS'],
      costs.map(({ name, kind, own, chain, frees, freesWithDescendants: all }) => [
        shown(name),
        paintKind(kind),
        bytes(own.size),
        String(own.inodes),
        bytes(chain.size),
        bytes(frees.size),
        bytes(all.size),
      ]),
    );
  });

/** Adds up along the tree, in which parents come before their children. */
async function costsOf(driver: OverlayDriver, names: readonly string[]): Promise<Cost[]> {
  for (const name of names) await driver.stat(name);
  const infos: Info[] = [];
  const own = new Map<string, Usage>();
  const chain = new Map<string, Usage>();
  for await (const info of driver.snapshots()) {
    const usage = await usageOf(driver, info.name);
    if (usage === undefined) continue;
    infos.push(info);
    own.set(info.name, usage);
    chain.set(info.name, add(usage, chain.get(info.parent ?? '')));
  }
  const parents = new Set(infos.map(({ parent }) => parent));
  const subtree = new Map(own);
  for (const { name, parent } of infos.toReversed()) {
    if (parent !== null) subtree.set(parent, add(subtree.get(parent), subtree.get(name)));
  }
  return infos
    .filter(({ name }) => names.length === 0 || names.includes(name))
    .map(({ name, kind }) => ({
      name,
      kind,
      own: own.get(name) ?? NOTHING,
      chain: chain.get(name) ?? NOTHING,
      frees: parents.has(name) ? NOTHING : (own.get(name) ?? NOTHING),
      freesWithDescendants: subtree.get(name) ?? NOTHING,
    }));
}

function add(one: Usage = NOTHING, other: Usage = NOTHING): Usage {
  return { inodes: one.inodes + other.inodes, size: one.size + other.size };
}
