import { Command, InvalidArgumentError } from 'commander';
import { checkStore } from '../check/check-store.ts';
import { type CheckProgress, type Finding, type Report, STEPS } from '../check/findings.ts';
import { SnapshotError } from '../errors.ts';
import { jsonOption, rootOption, say, sayJson } from './store.ts';

/** The exit statuses, which are fsck(8)'s. */
const STATUS = { clean: 0, repaired: 1, damaged: 4, incomplete: 8, usage: 16 } as const;

interface Options {
  root: string;
  json?: true;
  quick?: true;
  contents?: true;
  only?: string[];
  maxDuration?: number;
  olderThan?: number;
  repair?: true;
  dryRun?: true;
}

/** `overlite check` */
export const checkCommand = new Command('check')
  .description('Check a store, in use or not, and repair what can be repaired')
  .addOption(rootOption())
  .addOption(jsonOption())
  .option('--quick', 'leave out the layers, and what takes SQLite long')
  .option('--contents', 'read every byte of the layers that were sealed with their contents')
  .option(
    '--only <step-or-name...>',
    `only these steps (${STEPS.join(', ')}) or snapshots and what they stand on`,
  )
  .option('--max-duration <seconds>', 'end after so long, with what was found until then', toMilliseconds)
  .option('--older-than <seconds>', 'tell of active snapshots and views that are older', toMilliseconds)
  .option('--repair', 'repair what can be repaired: nothing is deleted, lost+found keeps what is in the way')
  .option('--dry-run', 'with --repair, only tell what it would do')
  .addHelpText(
    'after',
    `
Examples:
  $ overlite check --root /var/lib/overlite
  $ overlite check --root /var/lib/overlite --only layers base --contents
  $ overlite check --root /var/lib/overlite --repair --dry-run

Exit status, as of fsck: 0 clean, 1 found and repaired, 4 errors left, 8 could not check, 16 wrong usage.`,
  )
  .action(async ({ root, json, ...options }: Options) => {
    const stopping = new AbortController();
    const stop = (): void => stopping.abort(new SnapshotError('UNAVAILABLE', 'the check was stopped'));
    process.once('SIGINT', stop).once('SIGTERM', stop);
    const progress = new ProgressLine();
    try {
      const { signal } = stopping;
      const report = await checkStore(root, { ...options, signal, onProgress: (now) => progress.show(now) });
      progress.clear();
      if (json === true) sayJson(report);
      else show(report);
      process.exitCode = STATUS[report.status];
    } finally {
      progress.clear();
      process.off('SIGINT', stop).off('SIGTERM', stop);
    }
  });

/** The exit status of a check that failed. */
export function checkFailure(error: unknown): number {
  const usage =
    error instanceof TypeError || (error instanceof SnapshotError && error.code === 'INVALID_ARGUMENT');
  return usage ? STATUS.usage : STATUS.incomplete;
}

/** The exit status of wrong usage. */
export const CHECK_USAGE = STATUS.usage;

function toMilliseconds(text: string): number {
  const seconds = Number(text);
  if (text.trim() === '' || !(seconds >= 0)) throw new InvalidArgumentError('It is not a number of seconds.');
  return seconds * 1000;
}

/** A line on a terminal that says how far it has come; nothing elsewhere. */
class ProgressLine {
  readonly #terminal = process.stderr.isTTY;

  show({ step, checked, total }: CheckProgress): void {
    if (!this.#terminal) return;
    const part = total === null || total === 0 ? `${checked}` : `${checked} of ${Math.max(total, checked)}`;
    process.stderr.write(`\r\u001B[Kchecking ${step}: ${part}`);
  }

  clear(): void {
    if (this.#terminal) process.stderr.write('\r\u001B[K');
  }
}

function show(report: Report): void {
  for (const finding of report.findings) showFinding(finding);
  for (const { code, action, outcome, snapshot, path, detail } of report.repairs) {
    const subject = path ?? snapshot ?? '';
    const more = detail === undefined ? '' : ` (${detail})`;
    const words = {
      planned: 'would repair',
      done: 'repaired',
      gone: 'already gone',
      refused: 'not repaired',
    };
    say(`${words[outcome]}: ${code} ${subject}: ${action}${more}`);
  }
  if (report.rebuild.length > 0) {
    say('\nTo be removed and built anew, the last first:');
    for (const { name, kind, because } of report.rebuild) {
      say(
        `  ${JSON.stringify(name)} (${kind})${because === name ? '' : `, which stands on ${JSON.stringify(because)}`}`,
      );
    }
    say('');
  }
  for (const { step, state, checked, reason } of report.steps) {
    const why = reason === undefined ? '' : `, ${reason}`;
    say(`${step.padEnd(12)} ${state}${why}${state === 'skipped' ? '' : `, ${checked} looked at`}`);
  }
  say(`${report.root}: ${report.status}`);
}

function showFinding({ code, severity, message, path, repair }: Finding): void {
  say(`${severity}: ${code}: ${message}`);
  if (path !== null && !message.includes(path)) say(`  at ${path}`);
  if (repair !== null) say(`  repair would ${repair}`);
}
