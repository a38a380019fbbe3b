import { setTimeout as sleep } from 'node:timers/promises';
import type { CheckContext } from './context.ts';
import type { Problem } from './problem.ts';

/** The pauses before each time that suspects are checked again, in milliseconds, while others use the store. */
const PAUSES_MS = [0, 150, 1000, 1500];

/**
 * Checks the ids that seem to have problems again, with what the database says by then, and drops the problems that
 * are gone: another process may have been in the middle of an operation.
 */
export async function confirm(
  { inspector, progress }: CheckContext,
  suspects: ReadonlyMap<number, readonly Problem[]>,
  checkAgain: (id: number) => readonly Problem[],
): Promise<Problem[]> {
  let left = new Map([...suspects].filter(([, problems]) => problems.length > 0));
  for (const pause of inspector.shared ? PAUSES_MS : PAUSES_MS.slice(0, 1)) {
    if (left.size === 0) break;
    if (pause > 0) await sleep(pause);
    const still = new Map<number, readonly Problem[]>();
    for (const [id, before] of left) {
      progress.advance(0);
      const problems = checkAgain(id).filter(({ code }) => before.some((suspect) => suspect.code === code));
      if (problems.length > 0) still.set(id, problems);
    }
    left = still;
  }
  return [...left.values()].flat();
}
