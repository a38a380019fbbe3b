import { type StoreOptions, storeCommand } from './command.ts';
import { paint, say, sayJsonArray, shown } from './output.ts';
import { stopSignal } from './stopping.ts';
import { openStoreToRead } from './store.ts';
import type { Change } from '../snapshot.ts';

const SIGNS = {
  added: { letter: 'A', style: 'green' },
  modified: { letter: 'M', style: 'yellow' },
  deleted: { letter: 'D', style: 'red' },
} as const;

/** `overlite diff` */
export const diffCommand = storeCommand(
  'diff',
  'List how a snapshot differs from its parent, or from another one',
  {
    examples: ['overlite diff workspace', 'overlite diff release-2 release-1 --json'],
    note: `A is added, M modified, D deleted. Directories end in a slash; a deleted one stands for everything that
was in it. The contents of files of equal size and time are compared only if that time is a whole second, as archives
set it, or with --contents. Needs root: both snapshots are mounted meanwhile, where nobody else sees them.`,
  },
)
  .argument('<key-or-name>', 'a snapshot of any kind')
  .argument('[other-key-or-name]', 'the snapshot to compare it with (default: its parent)')
  .option('--contents', 'compare the contents of all files of equal size and time')
  .action(
    async (
      keyOrName: string,
      against: string | undefined,
      options: StoreOptions & { contents?: true },
    ): Promise<void> => {
      await using driver = await openStoreToRead(options);
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
export function toLine({ kind, rawPath, differences }: Change): string {
  const { letter, style } = SIGNS[kind];
  const how = differences.length === 0 ? '' : paint('dim', `  (${differences.join(', ')})`);
  return `${paint(style, letter)} ${shown(rawPath)}${how}`;
}

async function* asJson(changes: AsyncIterable<Change>): AsyncGenerator<object> {
  for await (const { kind, path, rawPath, type, size, differences } of changes) {
    // Names need not be UTF-8: then only their bytes say which file it is.
    const odd = !Buffer.from(path).equals(rawPath);
    yield { kind, path, rawPath: odd ? rawPath.toString('base64') : null, type, size, differences };
  }
}
