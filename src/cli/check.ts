import { checkStore } from '../check/check.ts';
import { STEPS } from '../check/findings.ts';
import { SnapshotError } from '../errors.ts';
import { type Statuses, storeCommand, toMilliseconds } from './command.ts';
import { say, sayJson, shown } from './output.ts';
import { ProgressBar } from './progress.ts';
import { escapeHidden, quoteWhole } from '../quote.ts';
import { stopSignal } from './stopping.ts';
import type { CheckProgress, Finding, Report } from '../report.ts';

/** The exit statuses, as in fsck(8). */
const STATUS = { clean: 0, repaired: 1, damaged: 4, incomplete: 8, usage: 16 } as const;

const statuses: Statuses = {
  words: 'as in fsck: 0 clean, 1 errors repaired, 4 errors left, 8 could not check, 16 wrong usage.',
  usage: STATUS.usage,
  failed: (error) => {
    const usage =
      error instanceof TypeError || (error instanceof SnapshotError && error.code === 'INVALID_ARGUMENT');
    return usage ? STATUS.usage : STATUS.incomplete;
  },
};

interface CheckCommandOptions {
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
export const checkCommand = storeCommand(
  'check',
  'Check a store, in use or not, and repair what can be repaired',
  {
    examples: [
      'overlite check --root /var/lib/overlite',
      'overlite check --root /var/lib/overlite --only layers base --contents',
      'overlite check --root /var/lib/overlite --repair --dry-run',
    ],
    statuses,
  },
)
  .option('--quick', 'leave out the layers and the slow checks of SQLite')
  .option('--contents', 'read every byte of the layers that were sealed with their contents')
  .option(
    '--only <step-or-name...>',
    `only these steps (${STEPS.join(', ')}) or only these snapshots and their ancestors`,
  )
  .option('--max-duration <seconds>', 'stop after this time, with what was found until then', toMilliseconds)
  .option('--older-than <seconds>', 'report active snapshots and views that are older', toMilliseconds)
  .option(
    '--repair',
    'repair what can be repaired; no data is deleted, what is in the way goes to lost+found',
  )
  .option('--dry-run', 'with --repair, only print what it would do')
  .action(
    async ({
      root,
      json,
      quick,
      contents,
      only,
      maxDuration,
      olderThan,
      repair,
      dryRun,
    }: CheckCommandOptions) => {
      const options = { quick, contents, only, maxDuration, olderThan, repair, dryRun };
      const report = await watch((onProgress) =>
        checkStore(root, { ...options, signal: stopSignal, onProgress }),
      );
      if (json === true) sayJson(report);
      else show(report);
      process.exitCode = STATUS[report.status];
    },
  );

/** Shows a bar for as long as a check runs. */
async function watch(
  run: (onProgress: (progress: CheckProgress) => void) => Promise<Report>,
): Promise<Report> {
  using bar = new ProgressBar();
  return await run(({ step, checked, total }) => bar.show({ doing: step, done: checked, total }));
}

function show(report: Report): void {
  for (const finding of report.findings) showFinding(finding);
  for (const { code, action, outcome, snapshot, path, detail } of report.repairs) {
    const about = path ?? snapshot;
    const subject = about === null ? '' : shown(about);
    const more = detail === undefined ? '' : ` (${escapeHidden(detail)})`;
    const words = {
      planned: 'would repair',
      done: 'repaired',
      gone: 'already gone',
      refused: 'not repaired',
    };
    say(`${words[outcome]}: ${code} ${subject}: ${action}${more}`);
  }
  if (report.rebuild.length > 0) {
    say('\nRemove and rebuild, in reverse order:');
    for (const { name, kind, because } of report.rebuild) {
      say(
        `  ${quoteWhole(name)} (${escapeHidden(kind)})${because === name ? '' : `, built on ${quoteWhole(because)}`}`,
      );
    }
    say('');
  }
  for (const { step, state, checked, reason } of report.steps) {
    const why = reason === undefined ? '' : `, ${reason}`;
    say(`${step.padEnd(12)} ${state}${why}${state === 'skipped' ? '' : `, ${checked} checked`}`);
  }
  say(`${shown(report.root)}: ${report.status}`);
}

function showFinding({ code, severity, message, path, repair }: Finding): void {
  say(`${severity}: ${code}: ${message}`);
  if (path !== null && !message.includes(escapeHidden(path))) say(`  at ${shown(path)}`);
  if (repair !== null) say(`  repair would ${repair}`);
}
