import { SnapshotError } from '../errors.ts';
import type { HeldRoot } from '../layers/held-root.ts';
import { FileStatus, isDirectory } from '../linux/file-status.ts';
import { cString } from '../linux/foreign.ts';
import { quote } from '../quote.ts';
import type { CheckProgress, Step, StepResult } from '../report.ts';
import type { CheckContext, CheckSettings, DatabaseContext } from './context.ts';
import { STEPS } from './findings.ts';
import { Problems } from './problems.ts';
import { Progress, TimeOver } from './progress.ts';
import { Rows } from './rows.ts';
import { addCorruption, checkDatabase, openDatabase, readRows } from './steps/database.ts';
import { checkDirectories } from './steps/directories.ts';
import { checkGraph } from './steps/graph.ts';
import { checkLayers } from './steps/layers.ts';
import { checkLeftovers } from './steps/leftovers.ts';
import { checkMounts } from './steps/mounts.ts';

/** What is checked, and how. */
export interface PassInput {
  readonly held: HeldRoot;
  readonly settings: CheckSettings;
  /** When to stop, as a time of `performance.now()`. */
  readonly deadline: number;
  readonly onProgress: (progress: CheckProgress) => void;
  /** Gives a directory for a copy of the database. */
  readonly scratch: () => string;
}

/** What one pass over all steps found. */
export interface Pass {
  readonly problems: Problems;
  readonly rows: Rows;
  readonly steps: readonly StepResult[];
}

type OtherStep = Exclude<Step, 'database'>;

/** The steps that need the rows. */
const OTHER_STEPS = STEPS.filter((step): step is OtherStep => step !== 'database');

const CHECKS: Readonly<Record<OtherStep, (context: CheckContext) => void | Promise<void>>> = {
  graph: checkGraph,
  directories: checkDirectories,
  layers: checkLayers,
  leftovers: checkLeftovers,
  mounts: checkMounts,
};

/** The steps that go below `snapshots/`, after that which checks what it is. */
const BELOW_SNAPSHOTS: ReadonlySet<Step> = new Set(['layers', 'leftovers', 'mounts']);

/** Whether something else than a directory is in the place of `snapshots/`. */
function hasOtherSnapshots({ fd }: HeldRoot): boolean {
  const status = new FileStatus();
  return status.read(fd, cString('snapshots')) && !isDirectory(status.mode);
}

const NOT_READABLE = 'the database cannot be read as a whole';

/**
 * Runs the steps of a check, once.
 *
 * @throws {SnapshotError} NOT_FOUND if a snapshot in `only` does not exist
 */
export async function runPass(input: PassInput): Promise<Pass> {
  const { held, settings, deadline, onProgress, scratch } = input;
  const problems = new Problems();
  const progress = new Progress(onProgress, deadline);
  const { wanted, names } = splitOnly(settings);
  const { layout } = held;
  progress.begin('database');
  const inspector = openDatabase(layout, scratch, problems);
  if (inspector === undefined) {
    const steps = STEPS.map((step): StepResult => {
      if (step === 'database') return { step, state: 'done', checked: 0 };
      return skipped(step, wanted.has(step) ? 'the database cannot be read' : undefined);
    });
    return { problems, rows: new Rows(), steps };
  }
  try {
    return await runSteps({ held, layout, settings, inspector, progress, problems }, wanted, names);
  } finally {
    inspector.close();
  }
}

async function runSteps(
  database: DatabaseContext,
  wanted: ReadonlySet<Step>,
  names: readonly string[],
): Promise<Pass> {
  const { problems, progress } = database;
  const steps: StepResult[] = [];
  /** Runs a step, unless something has stopped the check. @returns what has stopped it, if anything has */
  const run = async (
    step: Step,
    stopped: string | undefined,
    check: () => void | Promise<void>,
  ): Promise<string | undefined> => {
    if (stopped !== undefined || !wanted.has(step)) {
      steps.push(skipped(step, wanted.has(step) ? stopped : undefined));
      return stopped;
    }
    progress.begin(step);
    try {
      await check();
      steps.push({ step, state: 'done', checked: progress.checked });
      return undefined;
    } catch (error) {
      const reason = whyStopped(database, error);
      steps.push({ step, state: 'partial', checked: progress.checked, reason });
      return reason;
    }
  };
  let stopped = await run('database', undefined, () => checkDatabase(database));
  const rows = stopped === undefined ? readRows(database) : undefined;
  if (rows === undefined) stopped ??= NOT_READABLE;
  const context: CheckContext = {
    ...database,
    rows: rows ?? new Rows(),
    only: rows === undefined || names.length === 0 ? undefined : withAncestors(rows, names),
  };
  const unreachable = hasOtherSnapshots(context.held) ? 'snapshots/ is not a directory' : undefined;
  for (const step of OTHER_STEPS) {
    if (BELOW_SNAPSHOTS.has(step)) stopped ??= unreachable;
    stopped = await run(step, stopped, () => CHECKS[step](context));
  }
  return { problems, rows: context.rows, steps };
}

function skipped(step: Step, reason: string | undefined): StepResult {
  return { step, state: 'skipped', checked: 0, ...(reason !== undefined && { reason }) };
}

/** Why a step could not be completed. @throws the error, if that has to end the check */
function whyStopped(context: DatabaseContext, error: unknown): string {
  if (error instanceof TimeOver) return `the time limit of ${context.settings.maxDuration} ms was reached`;
  if (!(error instanceof SnapshotError) || error.code !== 'DATA_LOSS') throw error;
  addCorruption(context, error);
  return NOT_READABLE;
}

/** Splits `only` into the steps that are wanted and the names of snapshots. */
function splitOnly({ only = [], quick = false }: CheckSettings): { wanted: Set<Step>; names: string[] } {
  const steps = STEPS.filter((step) => only.includes(step));
  const names = only
    .filter((word) => !STEPS.some((step) => step === word))
    .map((word) => (word.startsWith('name:') ? word.slice('name:'.length) : word));
  const wanted = new Set<Step>(steps.length > 0 ? steps : STEPS);
  if (quick) wanted.delete('layers');
  return { wanted, names };
}

/** The ids of snapshots and all their ancestors. @throws {SnapshotError} NOT_FOUND if one does not exist */
function withAncestors({ snapshots }: Rows, names: readonly string[]): Set<number> {
  const idOf = new Map([...snapshots.values()].map(({ id, name }) => [name, id]));
  const ids = new Set<number>();
  for (const name of names) {
    let id = idOf.get(name) ?? null;
    if (id === null) throw new SnapshotError('NOT_FOUND', `there is no snapshot ${quote(name)}`);
    for (; id !== null && !ids.has(id); id = snapshots.get(id)?.parentId ?? null) ids.add(id);
  }
  return ids;
}
