import type { Info } from '../snapshot.ts';
import { type StoreOptions, storeCommand } from './command.ts';
import { paint, paintKind, say, sayJson, shown, toJson } from './output.ts';
import { openStoreToRead, usageOf } from './store.ts';
import { age, bytes } from './units.ts';

/** A snapshot that is still to be drawn. */
interface Pending {
  readonly info: Info;
  /** The text before its own line, and before those of its children. */
  readonly branch: string;
  readonly trunk: string;
}

/** `overlite tree` */
export const treeCommand = storeCommand(
  'tree',
  'Draw the snapshots as a tree, children below their parents',
  {
    examples: ['overlite tree', 'overlite tree base'],
  },
)
  .argument('[key-or-name]', 'only this snapshot and its descendants')
  .action(async (name: string | undefined, options: StoreOptions) => {
    await using driver = await openStoreToRead(options);
    const children = new Map<string | null, Info[]>();
    const top: Info[] = name === undefined ? [] : [await driver.stat(name)];
    for await (const info of driver.snapshots()) {
      const siblings = children.get(info.parent);
      if (siblings === undefined) children.set(info.parent, [info]);
      else siblings.push(info);
    }
    if (name === undefined) top.push(...(children.get(null) ?? []));
    if (options.json === true) {
      sayJson(top.map((info) => toTree(info, children)));
      return;
    }
    const now = Date.now();
    const pending: Pending[] = top.toReversed().map((info) => ({ info, branch: '', trunk: '' }));
    for (let next = pending.pop(); next !== undefined; next = pending.pop()) {
      const { info, branch, trunk } = next;
      const usage = info.kind === 'committed' ? await usageOf(driver, info.name) : undefined;
      const size = usage === undefined || usage === null ? '' : `, ${bytes(usage.size)}`;
      const rest = `(${paintKind(info.kind)}${size}, ${age(info.created, now)})`;
      say(`${paint('dim', branch)}${shown(info.name)}  ${rest}`);
      const siblings = (children.get(info.name) ?? []).toReversed();
      for (const [at, child] of siblings.entries()) {
        const last = at === 0;
        pending.push({
          info: child,
          branch: `${trunk}${last ? '└─ ' : '├─ '}`,
          trunk: `${trunk}${last ? '   ' : '│  '}`,
        });
      }
    }
  });

/** A snapshot with its children in it: recursive, since a chain has at most as many layers as overlayfs stacks. */
function toTree(info: Info, children: ReadonlyMap<string | null, readonly Info[]>): object {
  const own = children.get(info.name) ?? [];
  return { ...toJson(info), children: own.map((child) => toTree(child, children)) };
}
