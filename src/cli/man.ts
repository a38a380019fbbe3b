import type { Argument, Command, Option } from 'commander';
import { STATUSES, command, helpOf } from './command.ts';
import { say } from './output.ts';

/** `overlite man` */
export const manCommand = command('man', 'Print the manual page', {
  examples: ['overlite man | man -l -', 'overlite man > /usr/local/share/man/man1/overlite.1'],
  note: 'It has the same text as --help.',
}).action((_options: unknown, self: Command) => {
  for (const line of page(self.parent ?? self)) say(line);
});

/** The manual page of a program, in the language of man(7). */
function* page(program: Command): Generator<string> {
  const name = program.name();
  yield `.TH ${name.toUpperCase()} 1 "" "${name} ${program.version() ?? ''}" "User Commands"`;
  yield '.SH NAME';
  yield `${name} \\- ${text(lowerFirst(program.description()))}`;
  yield '.SH SYNOPSIS';
  yield `.B ${name}`;
  yield '.I command';
  yield '[\\fIoptions\\fR] [\\fIarguments\\fR]';
  yield '.SH DESCRIPTION';
  yield* paragraphs(INTRODUCTION);
  const help = program.createHelp();
  const commands = help.visibleCommands(program).filter((one) => helpOf(one).examples.length > 0);
  yield '.SH OPTIONS';
  yield* paragraphs('Most commands have these options. The others are described with each command.');
  const options = commands.flatMap((one) => one.createHelp().visibleOptions(one));
  for (const long of SHARED) {
    const option = options.find((one) => one.long === long);
    if (option !== undefined) yield* item(option.flags, describeOption(option));
  }
  let group: string | undefined;
  for (const one of commands) {
    if (one.helpGroup() !== group) {
      group = one.helpGroup();
      yield `.SH "${text(group.replace(/:$/, '').toUpperCase())}"`;
    }
    yield* section(name, one);
  }
  yield '.SH ENVIRONMENT';
  yield* item('OVERLITE_ROOT', 'The root of the store (default of \\-\\-root).');
  yield* item('NO_COLOR', 'If it is set and not empty, the output has no colours.');
  yield '.SH EXIT STATUS';
  yield text(`${STATUSES.words} 130 stopped by Ctrl-C. Commands with other statuses list them.`);
}

/** The options that are described once for all commands. */
const SHARED = ['--root', '--json', '--busy-timeout', '--debug', '--help'] as const;

const INTRODUCTION = `overlite keeps overlayfs snapshots: base layers, writable workspaces on top of them, and committed
layers to build on. Their names, parents, labels and states are rows in an SQLite database; the layers are plain
directories. Any number of commands may run beside each other, and beside a service that has the store open.

A key identifies an active snapshot, which is writable, or a view, which is read-only. A name identifies a committed
snapshot, which never changes and can be a parent. Write \`--' before a key or name that begins with a dash.`;

function* section(program: string, of: Command): Generator<string> {
  const help = of.createHelp();
  yield `.SS "${text(`${program} ${[of.name(), ...of.aliases()].join('|')} ${of.usage()}`)}"`;
  yield `${text(of.description())}.`;
  const { note, examples, statuses } = helpOf(of);
  if (note !== undefined) yield* paragraphs(note);
  for (const argument of help.visibleArguments(of)) yield* item(argument.name(), describeArgument(argument));
  const own = help.visibleOptions(of).filter(({ long }) => !SHARED.some((shared) => shared === long));
  for (const option of own) yield* item(option.flags, describeOption(option));
  yield '.PP';
  yield 'Examples:';
  yield '.PP';
  yield '.nf';
  for (const example of examples) yield `.RS 4\n${text(example)}\n.RE`;
  yield '.fi';
  if (statuses !== undefined) yield* paragraphs(`Exit status: ${statuses.words}`);
}

function describeArgument(argument: Argument): string {
  return text(argument.description);
}

function describeOption(option: Option): string {
  const { description, argChoices: choices, defaultValue, envVar } = option;
  const more = [
    ...(choices === undefined ? [] : [`choices: ${choices.join(', ')}`]),
    ...(typeof defaultValue === 'string' ? [`default: ${defaultValue}`] : []),
    ...(envVar === undefined ? [] : [`env: ${envVar}`]),
  ];
  return text(more.length === 0 ? description : `${description} (${more.join('; ')})`);
}

function* item(term: string, description: string): Generator<string> {
  yield '.TP';
  yield `.B ${term.replaceAll('-', '\\-')}`;
  yield description;
}

function* paragraphs(prose: string): Generator<string> {
  for (const paragraph of prose.split('\n\n')) {
    yield '.PP';
    yield text(paragraph.replaceAll('\n', ' '));
  }
}

/** Escapes text for roff. */
function text(plain: string): string {
  return plain
    .replaceAll('\\', '\\e')
    .replaceAll('-', '\\-')
    .replaceAll('"', '\\(dq')
    .replaceAll(/^[.']/gm, '\\&$&');
}

function lowerFirst(sentence: string): string {
  return sentence.charAt(0).toLowerCase() + sentence.slice(1);
}
