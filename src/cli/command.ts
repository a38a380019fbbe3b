import { Command, InvalidArgumentError, Option } from 'commander';
import { MOUNT_METHODS } from '../mount/method.ts';
import type { Labels } from '../snapshot.ts';

/** The options that every command on a store has. */
export interface StoreOptions {
  readonly root: string;
  readonly json?: true;
  readonly busyTimeout?: number;
}

/** What a command ends with. */
export interface Statuses {
  /** All of them, in the words of its help. */
  readonly words: string;
  readonly usage: number;
  readonly failed: (error: unknown) => number;
}

/** What most commands end with. */
export const STATUSES: Statuses = {
  words: '0 done, 1 the operation failed, 2 wrong usage.',
  usage: 2,
  failed: () => 1,
};

/** What the help of a command says beyond its arguments and options. */
interface Help {
  /** Command lines as they may be typed, at least two of them. */
  readonly examples: readonly string[];
  /** What has to be known before using it. */
  readonly note?: string;
  readonly statuses?: Statuses;
}

const helps = new WeakMap<Command, Help>();

/** What the help of a command says beyond its arguments and options. */
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
    .option('--debug', 'with an error, print where it comes from');
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

/** A command that waits for others who write to the store. */
export function writeCommand(name: string, description: string, help: Help): Command {
  return storeCommand(name, description, help).option(
    '--busy-timeout <seconds>',
    'how long to wait for others who write; 30 unless given',
    toMilliseconds,
  );
}

/** The option that gives a new snapshot its labels. */
export function labelOption(): Option {
  return new Option(
    '--label <key=value>',
    'a label of the new snapshot; may be given several times',
  ).argParser((text: string, labels: Labels | undefined): Labels => {
    const [key, value] = toLabel(text);
    return { ...labels, [key]: value };
  });
}

/** The option that says how overlays are mounted. */
export function byOption(): Option {
  return new Option(
    '--by <way>',
    'mount overlays in this way; the best that the kernel knows unless given',
  ).choices(MOUNT_METHODS);
}

/** Reads `key=value`. */
function toLabel(text: string): [key: string, value: string] {
  const equals = text.indexOf('=');
  if (equals < 1) throw new InvalidArgumentError('It is not of the form key=value.');
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
