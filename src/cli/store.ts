import { Option } from 'commander';

/** Which store a command works on. */
export function rootOption(): Option {
  return new Option('--root <directory>', 'the root of the store').env('OVERLITE_ROOT').makeOptionMandatory();
}

/** Whether a command is to print JSON, for scripts. */
export function jsonOption(): Option {
  return new Option('--json', 'print JSON');
}

/** Prints a line. */
export function say(line: string): void {
  process.stdout.write(`${line}\n`);
}

/** Prints a value as JSON. */
export function sayJson(value: unknown): void {
  say(JSON.stringify(value, null, 2));
}
