import { lstatSync, realpathSync, statSync } from 'node:fs';
import type { TaskContext } from '../linux/child.ts';
import { Layout } from '../layers/layout.ts';
import { SnapshotError, toSnapshotError } from '../errors.ts';
import { quote } from '../quote.ts';
import type { CheckProgress, Repair, Report } from '../report.ts';
import type { CheckSettings } from './context.ts';
import { type Pass, runPass } from './pass.ts';
import { toFinding } from './problem.ts';
import { rebuildOf } from './rebuild.ts';
import { repairStore } from './repair.ts';

/** What is to be checked. */
export interface CheckInput {
  readonly root: string;
  readonly settings: CheckSettings;
}

/** How often repair is tried: one repair can reveal what another has to repair. */
const REPAIR_ROUNDS = 3;

/**
 * Checks a store and, if asked to, repairs it. Run it in a process of its own: it blocks, reads the database by other
 * means than SQLite, and a damaged file may crash it.
 *
 * @throws {SnapshotError} FAILED_PRECONDITION if there is no store in the root
 * @throws {SnapshotError} NOT_FOUND if a snapshot in `only` does not exist
 */
export async function examine(
  { root: given, settings }: CheckInput,
  { emit, scratch }: TaskContext<CheckProgress>,
): Promise<Report> {
  const root = findRoot(given);
  const layout = new Layout(root);
  const deadline = performance.now() + (settings.maxDuration ?? Infinity);
  const check = (): Promise<Pass> => runPass({ layout, settings, deadline, onProgress: emit, scratch });
  let pass = await check();
  const repairs: Repair[] = [];
  if (settings.repair === true) {
    const dryRun = settings.dryRun === true;
    for (let round = 0; round < REPAIR_ROUNDS; round += 1) {
      const made = await repairStore(layout, pass, { dryRun });
      repairs.push(...made);
      if (dryRun || made.every(({ outcome }) => outcome === 'refused')) break;
      pass = await check();
    }
  }
  return toReport(root, pass, repairs);
}

function toReport(root: string, { problems, rows, steps }: Pass, repairs: readonly Repair[]): Report {
  const findings = [...problems].map((problem) => toFinding(problem, rows));
  const damaged = findings.some(({ severity }) => severity === 'error');
  const incomplete = steps.some(({ state, reason }) => state !== 'done' && reason !== undefined);
  const repaired = repairs.some(({ outcome }) => outcome === 'done');
  const intact = incomplete ? 'incomplete' : repaired ? 'repaired' : 'clean';
  return {
    root,
    status: damaged ? 'damaged' : intact,
    findings,
    steps,
    rebuild: rebuildOf(problems, rows),
    repairs,
  };
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
