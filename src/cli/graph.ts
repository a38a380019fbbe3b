import { Option } from 'commander';
import type { Info, Kind } from '../snapshot.ts';
import { type StoreOptions, storeCommand } from './command.ts';
import { say, sayJson } from './output.ts';
import { lookAtStore, usageOf } from './store.ts';
import { bytes } from './units.ts';

/** A snapshot in the graph. */
interface Node {
  readonly id: number;
  readonly name: string;
  readonly kind: Kind;
  /** What its layer holds, in bytes; `null` for an active one, whose layer would have to be looked at. */
  readonly size: number | null;
}

/** From a snapshot to its parent. */
interface Edge {
  readonly from: number;
  readonly to: number;
}

interface Graph {
  readonly nodes: readonly Node[];
  readonly edges: readonly Edge[];
}

/** `overlite graph` */
export const graphCommand = storeCommand('graph', 'Write the snapshots as a graph, for Graphviz or Mermaid', {
  examples: ['overlite graph | dot -Tsvg > snapshots.svg', 'overlite graph base --format mermaid'],
})
  .argument('[key-or-name]', 'only this snapshot and what descends from it')
  .addOption(
    new Option('--format <format>', 'the language of the graph').choices(['dot', 'mermaid']).default('dot'),
  )
  .action(
    async (
      name: string | undefined,
      options: StoreOptions & { format: keyof typeof FORMATS },
    ): Promise<void> => {
      const graph = await read(name, options);
      if (options.json === true) sayJson(graph);
      else for (const line of FORMATS[options.format](graph)) say(line);
    },
  );

/** Reads the graph. Parents come before their children, so one look at each is enough. */
async function read(name: string | undefined, options: StoreOptions): Promise<Graph> {
  await using driver = await lookAtStore(options);
  const top = name === undefined ? undefined : await driver.stat(name);
  const ids = new Map<string, number>();
  const nodes: Node[] = [];
  const edges: Edge[] = [];
  for await (const info of driver.snapshots()) {
    const parent = info.parent === null ? undefined : ids.get(info.parent);
    if (top !== undefined && info.id !== top.id && parent === undefined) continue;
    const usage = info.kind === 'active' ? null : await usageOf(driver, info.name);
    if (usage === undefined) continue;
    ids.set(info.name, info.id);
    nodes.push(toNode(info, usage?.size ?? null));
    if (parent !== undefined) edges.push({ from: info.id, to: parent });
  }
  return { nodes, edges };
}

function toNode({ id, name, kind }: Info, size: number | null): Node {
  return { id, name, kind, size };
}

const FORMATS = { dot: toDot, mermaid: toMermaid };

/** Committed snapshots are boxes, what can be written to is round, and views are dashed. */
function* toDot({ nodes, edges }: Graph): Generator<string> {
  const shapes = {
    committed: 'shape=box',
    active: 'shape=box, style=rounded',
    view: 'shape=box, style=dashed',
  };
  yield 'digraph overlite {';
  yield '  rankdir=BT;';
  for (const node of nodes) {
    const label = linesOf(node)
      .map((line) => line.replaceAll(/["\\]/g, '\\$&'))
      .join('\\n');
    yield `  ${node.id} [label="${label}", ${shapes[node.kind]}];`;
  }
  for (const { from, to } of edges) yield `  ${from} -> ${to};`;
  yield '}';
}

function* toMermaid({ nodes, edges }: Graph): Generator<string> {
  const shapes = { committed: ['[', ']'], active: ['(', ')'], view: ['>', ']'] } as const;
  yield 'flowchart BT';
  for (const node of nodes) {
    // Mermaid reads entities, and nothing else, in place of what means something to it.
    const label = linesOf(node)
      .map((line) => line.replaceAll(/[^\p{L}\p{N} ,/.:_-]/gu, (char) => `#${char.codePointAt(0)};`))
      .join('<br>');
    const [open, close] = shapes[node.kind];
    yield `  s${node.id}${open}"${label}"${close}`;
  }
  for (const { from, to } of edges) yield `  s${from} --> s${to}`;
}

/** What stands in a node: the name, without what a terminal or a picture cannot show, and what it is. */
function linesOf({ name, kind, size }: Node): string[] {
  return [
    name.replaceAll(/\p{C}/gu, '\uFFFD'),
    size === null || kind === 'view' ? kind : `${kind}, ${bytes(size)}`,
  ];
}
