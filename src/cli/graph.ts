import { Option } from 'commander';
import { replaceHidden } from '../quote.ts';
import type { Info, Kind } from '../snapshot.ts';
import { type StoreOptions, storeCommand } from './command.ts';
import { say, sayJson } from './output.ts';
import { openStoreToRead, usageOf, withDescendants } from './store.ts';
import { bytes } from './units.ts';

/** A snapshot in the graph. */
interface Node {
  readonly id: number;
  readonly name: string;
  readonly kind: Kind;
  /** The size of its layer in bytes; `null` for an active one, for which it takes a walk over the layer. */
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
export const graphCommand = storeCommand('graph', 'Print the snapshots as a graph, for Graphviz or Mermaid', {
  examples: ['overlite graph | dot -Tsvg > snapshots.svg', 'overlite graph base --format mermaid'],
})
  .argument('[key-or-name]', 'only this snapshot and its descendants')
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

/** Reads the graph. */
async function read(name: string | undefined, options: StoreOptions): Promise<Graph> {
  await using driver = await openStoreToRead(options);
  const wanted = name === undefined ? driver.snapshots() : await withDescendants(driver, name);
  const infos: Info[] = [];
  const nodes: Node[] = [];
  for await (const info of wanted) {
    const usage = info.kind === 'active' ? null : await usageOf(driver, info.name);
    if (usage === undefined) continue;
    infos.push(info);
    nodes.push(toNode(info, usage?.size ?? null));
  }
  const ids = new Map(infos.map((info) => [info.name, info.id]));
  const edges = infos.flatMap(({ id, parent }): Edge[] => {
    const to = ids.get(parent ?? '');
    return to === undefined ? [] : [{ from: id, to }];
  });
  return { nodes, edges };
}

function toNode({ id, name, kind }: Info, size: number | null): Node {
  return { id, name, kind, size };
}

const FORMATS = { dot: toDot, mermaid: toMermaid };

/** Committed snapshots are boxes, active ones have round corners, and views are dashed. */
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
      .map((line) => line.replaceAll('&', '&amp;').replaceAll(/["\\]/g, '\\$&'))
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
    // Entities are the only way to write characters that mean something to Mermaid.
    const label = linesOf(node)
      .map((line) =>
        line.replaceAll(/[^\p{L}\p{N} ,/.:_-]|[.-](?= )/gu, (char) => `#${char.codePointAt(0)};`),
      )
      .join('<br>');
    const [open, close] = shapes[node.kind];
    yield `  s${node.id}${open}"${label}"${close}`;
  }
  for (const { from, to } of edges) yield `  s${from} --> s${to}`;
}

/** The text in a node: the name, without invisible characters, and what it is. */
function linesOf({ name, kind, size }: Node): string[] {
  return [
    replaceHidden(name, () => '\uFFFD'),
    size === null || kind === 'view' ? kind : `${kind}, ${bytes(size)}`,
  ];
}
