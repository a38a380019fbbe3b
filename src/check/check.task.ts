import { lstatSync, realpathSync, statSync } from 'node:fs';
import type { TaskContext } from '../linux/child.ts';
import { Layout } from '../layers/layout.ts';
import { SnapshotError, toSnapshotError } from '../errors.ts';
import { quote } from '../quote.ts';
import { STEPS } from './findings.ts';
import { repairStore } from './repair.ts';
import { addCorruption, checkDatabase, openDatabaseOf, readRows } from './steps/database.ts';
import { checkDirectories } from './steps/directories.ts';
import { checkGraph } from './steps/graph.ts';
import { checkLayers } from './steps/layers.ts';
import { checkLeftovers } from './steps/leftovers.ts';
import { checkMounts } from './steps/mounts.ts';
import { type Settings, CheckContext, TimeOver } from './context.ts';
import type { CheckProgress, Repair, Report, Step, StepResult } from '../report.ts';

/** What is to be checked. */
export interface CheckInput {
  readonly root: string;
  readonly settings: Settings;
}

/** How often it is tried to repair what an earlier repair has brought to light. */
const REPAIR_ROUNDS = 3;

const RUN: Readonly<Record<Exclude<Step, 'database'>, (context: CheckContext) => void | Promise<void>>> = {
  graph: checkGraph,
  directories: checkDirectories,
  layers: checkLayers,
  leftovers: checkLeftovers,
  mounts: checkMounts,
};

/**
 * Checks a store and, if asked to, repairs it. It is to run in a process of its own: it blocks, reads the database by
 * other means than SQLite, and would end with the process if reading a damaged file did.
 *
 * @throws {SnapshotError} FAILED_PRECONDITION if there is no store in the root
 * @throws {SnapshotError} NOT_FOUND if there is no snapshot of a name that is asked for
 */
export async function examine(
  { root: given, settings }: CheckInput,
  { emit, scratch }: TaskContext<CheckProgress>,
): Promise<Report> {
  const root = findRoot(given);
  const layout = new Layout(root);
  const deadline = performance.now() + (settings.maxDuration ?? Infinity);
  const check = (): Promise<Outcome> =>
    checkOnce(new CheckContext(layout, settings, deadline, emit), scratch);
  let outcome = await check();
  const repairs: Repair[] = [];
  if (settings.repair === true) {
    for (let round = 0; round < REPAIR_ROUNDS; round += 1) {
      const made = await repairStore(layout, outcome.context, { dryRun: settings.dryRun === true });
      repairs.push(...made);
      if (settings.dryRun === true || made.every(({ outcome: came }) => came === 'refused')) break;
      outcome = await check();
    }
  }
  const { context, steps } = outcome;
  const findings = context.found.map(({ finding }) => finding);
  const damaged = findings.some(({ severity }) => severity === 'error');
  const incomplete = steps.some(({ state, reason }) => state !== 'done' && reason !== undefined);
  const repaired = repairs.some(({ outcome: came }) => came === 'done');
  const whole = incomplete ? 'incomplete' : repaired ? 'repaired' : 'clean';
  return { root, status: damaged ? 'damaged' : whole, findings, steps, rebuild: context.rebuild(), repairs };
}

function findRoot(given: string): string {
  try {
    const root = realpathSync(given);
    if (!statSync(root).isDirectory()) {
      throw new SnapshotError('FAILED_PRECONDITION', `the root ${quote(given)} is not a directory`);
    }
    const { database, snapshots } = new Layout(root);
    if ([database, snapshots].every((path) => lstatSync(path, { throwIfNoEntry: false }) === undefined)) {
      throw new SnapshotError('FAILED_PRECONDITION', `there is no store in ${quote(given)}`);
    }
    return root;
  } catch (error) {
    throw toSnapshotError(error, `checking ${quote(given)}`);
  }
}

/** What one pass over all steps found. */
interface Outcome {
  readonly context: CheckContext;
  readonly steps: StepResult[];
}

async function checkOnce(context: CheckContext, scratch: () => string): Promise<Outcome> {
  const { settings } = context;
  const { wanted, names } = readOnly(settings);
  const steps: StepResult[] = [];
  let over: string | undefined;
  const runDatabase = (): void => {
    if (!openDatabaseOf(context, scratch)) {
      over = 'the database cannot be read';
      return;
    }
    if (wanted.has('database')) checkDatabase(context);
    if (!readRows(context)) over = 'the database cannot be read as a whole';
    else if (names.length > 0) limit(context, names);
  };
  try {
    for (const step of STEPS) {
      const isDatabase = step === 'database';
      if (over !== undefined || (!isDatabase && !wanted.has(step))) {
        const why = wanted.has(step) && over !== undefined ? { reason: over } : {};
        steps.push({ step, state: 'skipped', checked: 0, ...why });
        continue;
      }
      context.begin(step);
      try {
        await (isDatabase ? runDatabase() : RUN[step](context));
        // The other steps need the rows, whether or not the database is to be checked.
        const state = wanted.has(step) || over !== undefined ? 'done' : 'skipped';
        steps.push({ step, state, checked: context.checked });
      } catch (error) {
        if (error instanceof TimeOver) {
          over = `the ${settings.maxDuration} ms that it was given are over`;
        } else if (error instanceof SnapshotError && error.code === 'DATA_LOSS') {
          addCorruption(context, error);
          over = 'the database cannot be read as a whole';
        } else {
          throw error;
        }
        steps.push({ step, state: 'partial', checked: context.checked, reason: over });
      }
    }
    return { context, steps };
  } finally {
    context.close();
  }
}

/** Which steps are wanted, and of which snapshots. */
function readOnly({ only = [], quick = false }: Settings): { wanted: Set<Step>; names: string[] } {
  const steps = STEPS.filter((step) => only.includes(step));
  const names = only
    .filter((word) => !STEPS.some((step) => step === word))
    .map((word) => (word.startsWith('name:') ? word.slice('name:'.length) : word));
  const wanted = new Set(steps.length > 0 ? steps : STEPS);
  if (quick) wanted.delete('layers');
  return { wanted, names };
}

/** Limits a check to some snapshots and what they stand on. */
function limit(context: CheckContext, names: readonly string[]): void {
  const ids = new Map([...context.snapshots.values()].map(({ id, name }) => [name, id]));
  const only = new Set<number>();
  for (const name of names) {
    const first = ids.get(name);
    if (first === undefined) throw new SnapshotError('NOT_FOUND', `there is no snapshot ${quote(name)}`);
    for (
      let id: number | null = first;
      id !== null && !only.has(id);
      id = context.snapshots.get(id)?.parentId ?? null
    ) {
      only.add(id);
    }
  }
  context.only = only;
}
