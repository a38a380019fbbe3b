import { Command, InvalidArgumentError, Option } from 'commander';
import type { DriverOptions } from '../driver/options.ts';
import { MOUNT_METHODS } from '../mount/method.ts';
import type { Labels } from '../snapshot.ts';

/** The options that every command on a store has. */
export interface StoreOptions {
  readonly root: string;
  readonly json?: true;
  readonly busyTimeout?: number;
}

/** The exit statuses of a command. */
export interface Statuses {
  /** All of them, as its help shows them. */
  readonly words: string;
  readonly usage: number;
  readonly failed: (error: unknown) => number;
}

/** The exit statuses of most commands. */
export const STATUSES: Statuses = {
  words: '0 done, 1 the operation failed, 2 wrong usage.',
  usage: 2,
  failed: () => 1,
};

/** What the help of a command has beside its arguments and options. */
interface Help {
  /** Command lines, at least two. */
  readonly examples: readonly string[];
  /** What to know before using it. */
  readonly note?: string;
  readonly statuses?: Statuses;
}

const helps = new WeakMap<Command, Help>();

/** The rest of a command's help. */
export function helpOf(of: Command): Help {
  return helps.get(of) ?? { examples: [] };
}

/** A command with its help. */
export function command(name: string, description: string, help: Help): Command {
  const { examples, note, statuses = STATUSES } = help;
  const parts = [
    ...(note === undefined ? [] : [note]),
    `Examples:\n${examples.map((example) => `  $ ${example}`).join('\n')}`,
    `Exit status: ${statuses.words}`,
  ];
  const made = new Command(name)
    .description(description)
    .addHelpText('after', `\n${parts.join('\n\n')}`)
    .option('--debug', 'print a stack trace on error');
  helps.set(made, help);
  return made;
}

/** A command that works on a store. */
export function storeCommand(name: string, description: string, help: Help): Command {
  return command(name, description, help)
    .addOption(
      new Option('--root <directory>', 'the root of the store').env('OVERLITE_ROOT').makeOptionMandatory(),
    )
    .option('--json', 'print JSON');
}

/** A command that writes to a store, and waits for other writers. */
export function writeCommand(name: string, description: string, help: Help): Command {
  return storeCommand(name, description, help).option(
    '--busy-timeout <seconds>',
    'how long to wait for other writers (default: 30)',
    toMilliseconds,
  );
}

/** The labels of a new snapshot. */
export function labelOption(): Option {
  return new Option(
    '--label <key=value>',
    'a label for the new snapshot; may be given several times',
  ).argParser((text: string, labels: Labels | undefined): Labels => {
    const [key, value] = toLabel(text);
    return { ...labels, [key]: value };
  });
}

/** How overlays are mounted. */
export function byOption(): Option {
  return new Option(
    '--by <method>',
    'how to mount overlays (default: the best that the kernel supports)',
  ).choices(MOUNT_METHODS);
}

/** The options of commands that commit: how the driver is opened for that. */
export type CommittingOptions = StoreOptions & Required<Pick<DriverOptions, 'seal' | 'durability'>>;

/** What the seal of a committed layer covers. */
export function sealOption(): Option {
  return new Option('--seal <what>', 'what the seal covers; content reads every byte')
    .choices(['metadata', 'content'])
    .default('metadata');
}

/** What is durable when a commit is done. */
export function durabilityOption(): Option {
  return new Option('--durability <what>', 'what survives a power cut; metadata does not sync layers')
    .choices(['full', 'metadata'])
    .default('full');
}

/** Reads `key=value`. */
function toLabel(text: string): [key: string, value: string] {
  const equals = text.indexOf('=');
  if (equals < 1) throw new InvalidArgumentError('It does not have the form key=value.');
  return [text.slice(0, equals), text.slice(equals + 1)];
}

/** The longest that a timer can wait, in seconds. */
const MAX_SECONDS = Math.floor((2 ** 31 - 1) / 1000);

/** Reads a number of seconds. */
export function toMilliseconds(text: string): number {
  const seconds = Number(text);
  if (text.trim() === '' || !(seconds >= 0 && seconds <= MAX_SECONDS))
    throw new InvalidArgumentError('It is not a number of seconds.');
  return seconds * 1000;
}
