import type { HeldRoot } from '../layers/held-root.ts';
import { StoreMounts } from '../layers/store-mounts.ts';
import { SnapshotError, toSnapshotError } from '../errors.ts';
import { RepairWriter } from '../metadata/repair/repair-writer.ts';
import { escapeHidden } from '../quote.ts';
import type { Repair } from '../report.ts';
import { REPAIR_PHASES } from './description.ts';
import { type DESCRIPTIONS, FINDINGS } from './findings.ts';
import type { Pass } from './pass.ts';
import { type Problem, toFinding } from './problem.ts';
import type { RepairContext, RepairOutcome, Repairs } from './repair-context.ts';
import { databaseRepairs } from './steps/database.repairs.ts';
import { directoryRepairs } from './steps/directories.repairs.ts';
import { graphRepairs } from './steps/graph.repairs.ts';

/** The functions of all repairs. It does not compile if one is missing. */
const REPAIRS: Repairs<typeof DESCRIPTIONS> = { ...databaseRepairs, ...graphRepairs, ...directoryRepairs };

type RepairableCode = keyof typeof REPAIRS;

/** A code of a repair that is done before the database is opened. */
type FileCode = {
  [Code in RepairableCode]: (typeof DESCRIPTIONS)[Code]['repair']['phase'] extends 'files' ? Code : never;
}[RepairableCode];

/** A problem that repair does something about. */
type Repairable = Problem & { readonly code: RepairableCode; readonly repair: object };

function isRepairable(problem: Problem): problem is Repairable {
  return problem.repair !== undefined;
}

function isOfFiles(problem: Repairable): problem is Repairable & { readonly code: FileCode } {
  return problem.repair.phase === 'files';
}

/**
 * Repairs what a check found, as far as possible; each problem only if it is still there once the write lock is held.
 * Nothing is deleted: what is in the way goes to `lost+found/`, with a note beside it. While the database is damaged
 * in a way that cannot be repaired, nothing else is repaired than what is beside it, since what it says cannot be relied
 * on.
 */
export async function repairStore(
  held: HeldRoot,
  { problems, rows }: Pass,
  { dryRun }: { dryRun: boolean },
): Promise<Repair[]> {
  const { layout } = held;
  const repairs: Repair[] = [];
  const report = (problem: Repairable, result: Pick<Repair, 'outcome' | 'detail'>): void => {
    const { code, snapshot, path } = toFinding(problem, rows);
    repairs.push({ code, snapshot, path, action: problem.repair.sentence, ...result });
  };
  const plan = [...problems].filter(isRepairable).toSorted((a, b) => orderOf(a) - orderOf(b));
  if (plan.length === 0) return [];
  const damage = [...problems].find(
    ({ code, severity, repair }) =>
      FINDINGS[code].step === 'database' && severity === 'error' && repair === undefined,
  );
  const possible = plan.filter(({ code }) => damage === undefined || code === 'wrong-type');
  for (const problem of plan) {
    if (!possible.includes(problem)) {
      const detail = `the database has to be brought in order first: ${damage?.message ?? ''}`;
      report(problem, { outcome: 'refused', detail });
    } else if (dryRun) {
      report(problem, { outcome: 'planned' });
    }
  }
  if (dryRun) return repairs;
  held.checkPlace();
  for (const problem of possible.filter(isOfFiles)) {
    // An error ends the repair: without the copy of a damaged log, the database must not be opened.
    report(problem, await REPAIRS[problem.code]({ held, layout }, problem));
  }
  if (damage !== undefined) return repairs;
  const writer = await RepairWriter.open(layout.database);
  try {
    const mounts = await new StoreMounts(held).survey();
    const context: RepairContext = { held, layout, writer, mounts };
    for (const problem of possible) {
      if (isOfFiles(problem)) continue;
      report(problem, await perform(context, problem));
    }
    return repairs;
  } finally {
    writer.close();
  }
}

function orderOf({ repair }: Repairable): number {
  return REPAIR_PHASES.indexOf(repair.phase);
}

async function perform(context: RepairContext, problem: Repairable): Promise<RepairOutcome> {
  try {
    const { outcome, detail } = await REPAIRS[problem.code](context, problem);
    if (detail === undefined) return { outcome };
    // Where it was set aside is a path as it is; why it was refused is a message, which can name others' mounts.
    return { outcome, detail: outcome === 'refused' ? escapeHidden(detail) : detail };
  } catch (error) {
    const failure = toSnapshotError(error, problem.repair.sentence);
    if (failure instanceof SnapshotError && failure.code !== 'INTERNAL') {
      return { outcome: 'refused', detail: failure.message };
    }
    throw failure;
  }
}
