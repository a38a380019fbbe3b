import { type StoreOptions, storeCommand } from './command.ts';
import { paint, say, sayJsonArray, shown } from './output.ts';
import { stopSignal } from './stopping.ts';
import { lookAtStore } from './store.ts';
import type { Change } from '../snapshot.ts';

const SIGNS = {
  added: { letter: 'A', style: 'green' },
  modified: { letter: 'M', style: 'yellow' },
  deleted: { letter: 'D', style: 'red' },
} as const;

/** `overlite diff` */
export const diffCommand = storeCommand(
  'diff',
  'List what a snapshot changed against its parent, or another',
  {
    examples: ['overlite diff workspace', 'overlite diff release-2 release-1 --json'],
    note: `A is added, M modified, D deleted; directories end in a slash, and a deleted one stands for all that it
held. Of files that have the same size and time, the contents are read where the time is a whole second, as archives
set it; with --contents, of all. Wants root: both are mounted meanwhile, where nobody sees it.`,
  },
)
  .argument('<key-or-name>', 'a snapshot of any kind')
  .argument('[other-key-or-name]', 'what to compare it with; its parent unless given')
  .option('--contents', 'read the contents of all files that look the same')
  .action(
    async (
      keyOrName: string,
      against: string | undefined,
      options: StoreOptions & { contents?: true },
    ): Promise<void> => {
      await using driver = await lookAtStore(options);
      const changes = driver.diff(keyOrName, {
        contents: options.contents === true,
        signal: stopSignal,
        ...(against !== undefined && { against }),
      });
      if (options.json === true) await sayJsonArray(asJson(changes));
      else for await (const change of changes) say(toLine(change));
    },
  );

/** A change for people: `M /etc/hosts  (mode)`. */
export function toLine({ kind, path, differences }: Change): string {
  const { letter, style } = SIGNS[kind];
  const how = differences.length === 0 ? '' : paint('dim', `  (${differences.join(', ')})`);
  return `${paint(style, letter)} ${shown(path)}${how}`;
}

async function* asJson(changes: AsyncIterable<Change>): AsyncGenerator<object> {
  for await (const { kind, path, rawPath, type, size, differences } of changes) {
    // Names need not be UTF-8: then only their bytes say which file it is.
    const odd = !Buffer.from(path).equals(rawPath);
    yield { kind, path, rawPath: odd ? rawPath.toString('base64') : null, type, size, differences };
  }
}
