import type { OverlayDriver } from '../driver/driver.ts';
import type { Info, Usage } from '../snapshot.ts';
import { type StoreOptions, storeCommand } from './command.ts';
import { paintKind, sayJson, sayTable, shown } from './output.ts';
import { openStoreToRead, usageOf, withDescendants } from './store.ts';
import { bytes } from './units.ts';

/** The space that a snapshot takes. */
interface Cost {
  readonly name: string;
  readonly kind: Info['kind'];
  /** Its own layer; `null` here and below if a layer is lost. */
  readonly own: Usage | null;
  /** It and all its ancestors. */
  readonly chain: Usage | null;
  /** What removing it would free: nothing if it has children. */
  readonly frees: Usage | null;
  /** What removing it and all its descendants would free. */
  readonly freesWithDescendants: Usage | null;
}

const NOTHING: Usage = { inodes: 0, size: 0 };

/** `overlite usage` */
export const usageCommand = storeCommand(
  'usage',
  'Show the space that snapshots take, and what removing them would free',
  {
    examples: ['overlite usage', 'overlite usage base workspace --json'],
    note: 'Removing a snapshot that has children frees nothing.',
  },
)
  .argument('[key-or-name...]', 'only these snapshots')
  .action(async (names: string[], options: StoreOptions) => {
    await using driver = await openStoreToRead(options);
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
        sizeOf(own),
        own === null ? '-' : String(own.inodes),
        sizeOf(chain),
        sizeOf(frees),
        sizeOf(all),
      ]),
    );
  });

function sizeOf(usage: Usage | null): string {
  return usage === null ? '-' : bytes(usage.size);
}

async function costsOf(driver: OverlayDriver, names: readonly string[]): Promise<Cost[]> {
  const tree = new Map<string, Measured>();
  for await (const info of names.length === 0 ? driver.snapshots() : related(driver, names)) {
    if (tree.has(info.name)) continue;
    const own = await usageOf(driver, info.name);
    if (own !== undefined) tree.set(info.name, { info, own, ancestors: [], subtree: own });
  }
  for (const measured of tree.values()) {
    for (let above = parentIn(tree, measured); above !== undefined; above = parentIn(tree, above)) {
      measured.ancestors.push(above);
      above.subtree = add(above.subtree, measured.own);
    }
  }
  const parents = new Set([...tree.values()].map(({ info }) => info.parent));
  const wanted = names.length === 0 ? tree : new Set(names);
  return [...tree.values()]
    .filter(({ info }) => wanted.has(info.name))
    .map(({ info: { name, kind }, own, ancestors, subtree }) => ({
      name,
      kind,
      own,
      chain: ancestors.reduce((sum, ancestor) => add(sum, ancestor.own), own),
      frees: parents.has(name) ? NOTHING : own,
      freesWithDescendants: subtree,
    }));
}

/** A snapshot whose layer was measured, with its relatives. */
interface Measured {
  readonly info: Info;
  readonly own: Usage | null;
  readonly ancestors: Measured[];
  subtree: Usage | null;
}

function parentIn(tree: ReadonlyMap<string, Measured>, { info }: Measured): Measured | undefined {
  return info.parent === null ? undefined : tree.get(info.parent);
}

/** The snapshots that these costs depend on: all ancestors and descendants. */
async function* related(driver: OverlayDriver, names: readonly string[]): AsyncGenerator<Info> {
  for (const name of names) {
    yield* await withDescendants(driver, name);
    yield* await driver.chain(name);
  }
}

/** The sum, which is unknown if one of both is. */
function add(one: Usage | null, other: Usage | null): Usage | null {
  return one && other && { inodes: one.inodes + other.inodes, size: one.size + other.size };
}
