import { constants, realpathSync, statSync } from 'node:fs';
import type { TaskContext } from '../linux/child.ts';
import { findDiskFailure } from '../layers/disk-failure.ts';
import { HeldRoot } from '../layers/held-root.ts';
import { SnapshotError, toSnapshotError } from '../errors.ts';
import { Descriptors } from '../linux/descriptors.ts';
import { openPlain, statPlain } from '../linux/plain-file.ts';
import { FileStatus } from '../linux/file-status.ts';
import { cString } from '../linux/foreign.ts';
import { DEFAULT_BUSY_TIMEOUT_MS } from '../metadata/busy.ts';
import { StoreLock } from '../metadata/store-lock.ts';
import { quote } from '../quote.ts';
import type { CheckProgress, FindingCode, Repair, Report } from '../report.ts';
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

/** What is found of a store whose disk fails. It says nothing of the store then. */
const UNREADABLE: ReadonlySet<FindingCode> = new Set([
  'database-unreadable',
  'database-corrupt',
  'not-a-database',
  'layer-unreadable',
]);

/**
 * Checks a store and, if asked to, repairs it. Run it in a process of its own: it blocks, reads the database by other
 * means than SQLite, and a damaged file may crash it.
 *
 * @throws {SnapshotError} FAILED_PRECONDITION if there is no store in the root
 * @throws {SnapshotError} NOT_FOUND if a snapshot in `only` does not exist
 * @throws {SnapshotError} UNAVAILABLE if the disk fails, or if it is to be repaired, and a restoration does not end
 */
export async function examine(
  { root: given, settings }: CheckInput,
  { emit, scratch }: TaskContext<CheckProgress>,
): Promise<Report> {
  const held = holdRoot(given);
  let lock: StoreLock | undefined;
  try {
    const deadline = performance.now() + (settings.maxDuration ?? Infinity);
    const check = (): Promise<Pass> => runPass({ held, settings, deadline, onProgress: emit, scratch });
    let pass = await check();
    const repairs: Repair[] = [];
    if (settings.repair === true) {
      const dryRun = settings.dryRun === true;
      // No restoration may replace the database meanwhile.
      if (!dryRun) lock = await StoreLock.share(held.layout.root, DEFAULT_BUSY_TIMEOUT_MS);
      for (let round = 0; round < REPAIR_ROUNDS; round += 1) {
        const made = await repairStore(held, pass, { dryRun });
        repairs.push(...made);
        if (dryRun || made.every(({ outcome }) => outcome === 'refused')) break;
        pass = await check();
      }
    }
    if ([...pass.problems].some(({ code }) => UNREADABLE.has(code))) checkDisk(held);
    return toReport(held.layout.root, pass, repairs);
  } finally {
    lock?.release();
    held.close();
  }
}

/** @throws {SnapshotError} UNAVAILABLE if the disk of a store fails */
function checkDisk(held: HeldRoot): void {
  using opened = new Descriptors();
  const { root, database } = held.layout;
  const databases =
    statPlain(database) === undefined ? [] : [opened.add(openPlain(database, constants.O_RDONLY))];
  const failure = findDiskFailure(held, `checking ${quote(root)}`, databases);
  if (failure !== undefined) throw failure;
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

/** Opens the root of a store, which may be given by a path with symbolic links. */
function holdRoot(given: string): HeldRoot {
  let held: HeldRoot | undefined;
  try {
    const root = realpathSync(given);
    if (!statSync(root).isDirectory()) {
      throw new SnapshotError('FAILED_PRECONDITION', `the root ${quote(given)} is not a directory`);
    }
    held = new HeldRoot(root);
    const status = new FileStatus();
    for (const name of ['metadata.db', 'snapshots']) {
      if (status.read(held.fd, cString(name))) return held;
    }
    throw new SnapshotError('FAILED_PRECONDITION', `there is no store in ${quote(given)}`);
  } catch (error) {
    held?.close();
    throw toSnapshotError(error, `checking ${quote(given)}`);
  }
}
