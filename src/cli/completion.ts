import { readFileSync } from 'node:fs';
import { homedir } from 'node:os';
import { resolve } from 'node:path';
import { Argument, type Command, type Option } from 'commander';
import { RE2JS } from 're2js';
import { Layout } from '../layers/layout.ts';
import { MetadataReader } from '../metadata/reader.ts';
import { hasHidden } from '../quote.ts';
import { command } from './command.ts';
import { say } from './output.ts';

/** How many names are offered at most. */
const MOST = 200;

/** A completion for the word that is being typed. */
interface Candidate {
  readonly word: string;
  readonly description: string;
}

/** What may come next on a command line: one of the candidates, or files of this sort. */
interface Completions {
  readonly candidates: readonly Candidate[];
  readonly files: 'none' | 'directories' | 'files';
}

/** The scripts. Each calls `overlite complete` and evaluates nothing of its output, since names can be anything. */
const SCRIPTS = { bash: 'overlite.bash', zsh: '_overlite', fish: 'overlite.fish' } as const;

/** `overlite completion` */
export const completionCommand = command('completion', 'Print the completion script for a shell', {
  examples: [
    'overlite completion bash > /usr/share/bash-completion/completions/overlite',
    'source <(overlite completion zsh)',
    'overlite completion fish > ~/.config/fish/completions/overlite.fish',
  ],
  note: 'It completes commands, options, and the keys and names of the store in --root or OVERLITE_ROOT.',
})
  .addArgument(new Argument('<shell>', 'which shell').choices(Object.keys(SCRIPTS)))
  .action((shell: keyof typeof SCRIPTS) => {
    const script = new URL(`../../completions/${SCRIPTS[shell]}`, import.meta.url);
    say(readFileSync(script, 'utf8').trimEnd());
  });

/**
 * `overlite complete`: what the scripts call. The first line that it prints says what sort of files may be completed;
 * every other line is a word and, after a tab, its description.
 */
export const completeCommand = command('complete', 'Print what may come next on a command line', {
  examples: ['overlite complete -- info ba', 'overlite complete -- che'],
})
  .argument('[word...]', 'the words so far; the last one is being typed')
  .action(async (words: string[], _options: unknown, self: Command) => {
    const { candidates, files } = await complete(self.parent ?? self, words);
    say(files);
    for (const { word, description } of candidates) say(`${word}\t${description}`);
  });

/** What may come next in the place of the last of these words. */
async function complete(program: Command, words: readonly string[]): Promise<Completions> {
  const current = words.at(-1) ?? '';
  const [name, ...before] = words.slice(0, -1);
  const commands = program.createHelp().visibleCommands(program);
  if (name === undefined) {
    return offer([...named(commands), ...optionsOf(program)], current);
  }
  const of = commands.find((one) => [one.name(), ...one.aliases()].includes(name));
  if (of === undefined) return NOTHING;
  if (of.name() === 'help') return offer(named(commands), current);
  const { root, pending, positions, literal } = follow(of, before);
  if (pending !== undefined) return valuesOf(pending.argChoices, placeholder(pending.flags), current, root);
  if (!literal && current.startsWith('-')) {
    const option = of.options.find(({ long }) => current.startsWith(`${long}=`));
    if (option === undefined) return offer(optionsOf(of), current);
    const [flag = '', value = ''] = current.split(/=(.*)/s);
    const found = await valuesOf(option.argChoices, placeholder(option.flags), value, root);
    return {
      files: found.files,
      candidates: found.candidates.map(({ word, description }) => ({ word: `${flag}=${word}`, description })),
    };
  }
  const last = of.registeredArguments.at(-1);
  const argument = of.registeredArguments[positions] ?? (last?.variadic === true ? last : undefined);
  return argument === undefined ? NOTHING : valuesOf(argument.argChoices, argument.name(), current, root);
}

const NOTHING: Completions = { candidates: [], files: 'none' };

/** Reads the words after a command: the store, the option that waits for its value, and the number of arguments. */
function follow(
  of: Command,
  words: readonly string[],
): { root: string | undefined; pending: Option | undefined; positions: number; literal: boolean } {
  let root = process.env['OVERLITE_ROOT'];
  let pending: Option | undefined;
  let positions = 0;
  let literal = false;
  for (const word of words) {
    if (pending !== undefined) {
      if (pending.long === '--root') root = word;
      pending = undefined;
    } else if (literal || !word.startsWith('-') || word === '-') {
      positions += 1;
    } else if (word === '--') {
      literal = true;
    } else {
      pending = of.options.find(({ long, short, required }) => required && (long === word || short === word));
      if (word.startsWith('--root=')) root = word.slice('--root='.length);
    }
  }
  return { root, pending, positions, literal };
}

/** What the help calls a value: `name` in `--parent <name>`. */
function placeholder(flags: string): string {
  return /[<[]([\w-]+)/.exec(flags)?.[1] ?? '';
}

function named(commands: readonly Command[]): Candidate[] {
  return commands.map((one) => ({ word: one.name(), description: one.description() }));
}

function optionsOf(of: Command): Candidate[] {
  const options = of.createHelp().visibleOptions(of);
  return options.map(({ long, flags, description }) => ({ word: long ?? flags, description }));
}

function offer(candidates: readonly Candidate[], current: string): Completions {
  return { candidates: candidates.filter(({ word }) => word.startsWith(current)), files: 'none' };
}

/** What a value may be, by what the help calls it. */
async function valuesOf(
  choices: readonly string[] | undefined,
  called: string,
  current: string,
  root: string | undefined,
): Promise<Completions> {
  if (choices !== undefined) {
    return offer(
      choices.map((word) => ({ word, description: '' })),
      current,
    );
  }
  if (['directory', 'target'].includes(called)) return { candidates: [], files: 'directories' };
  if (['file', 'backup', 'command'].includes(called)) return { candidates: [], files: 'files' };
  const kinds = {
    key: 'kind!=committed',
    name: 'kind==committed',
    parent: 'kind==committed',
    'key-or-name': '',
  }[called.replace(/^other-/, '')];
  if (kinds === undefined || root === undefined) return NOTHING;
  return { candidates: await namesOf(root, current, kinds), files: 'none' };
}

/** Expands `~`, as a shell does for commands: here the path comes as it was typed. */
function expandHome(path: string): string {
  return path.replace(/^~(?=\/|$)/, homedir());
}

/** The names in a store that begin with what was typed; empty if the store cannot be read. */
async function namesOf(root: string, current: string, kinds: string): Promise<Candidate[]> {
  const found: Candidate[] = [];
  try {
    const reader = await MetadataReader.openReader(new Layout(resolve(expandHome(root))).database);
    try {
      const begins = current === '' ? '' : `name~=${JSON.stringify(`^${RE2JS.quote(current)}`)}`;
      const filters = [kinds, begins].filter((part) => part !== '').join(',');
      for (const { name, kind } of reader.snapshots(...(filters === '' ? [] : [filters]))) {
        // A shell could split such a name into several words.
        if (hasHidden(name)) continue;
        if (found.push({ word: name, description: kind }) === MOST) break;
      }
    } finally {
      reader.close();
    }
  } catch {
    // An error would only disturb whoever is typing.
  }
  return found;
}
