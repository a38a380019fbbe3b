import { measureUsage } from '../../layers/usage.ts';
import { walkTree } from '../../linux/tree-walk.ts';
import { highestIdOnDisk } from '../ids-on-disk.ts';
import type { Problem } from '../problem.ts';
import {
  DONE,
  GONE,
  type RepairContext,
  type RepairOutcome,
  type Repairs,
  locked,
  note,
} from '../repair-context.ts';
import type { GRAPH_FINDINGS } from './graph.findings.ts';

/** What repair does about the findings of the step `graph`. */
export const graphRepairs: Repairs<typeof GRAPH_FINDINGS> = {
  'kind-and-usage': setUsage,
  'live-and-journalled': locked(takeContradictions),
  'high-water-low': locked(correctHighWater),
  'high-water-high': locked(correctHighWater),
};

async function setUsage({ layout, writer }: RepairContext, { id, message }: Problem): Promise<RepairOutcome> {
  if (id === undefined) return GONE;
  // Before the lock is taken, since it takes long. The layer of a committed snapshot does not change.
  const usage =
    writer.snapshot(id)?.kind === 'committed' ? await measureUsage(walkTree(layout.fs(id))) : undefined;
  return writer.locked(() => {
    const row = writer.snapshot(id);
    if (row === undefined) return GONE;
    const committed = row.kind === 'committed';
    const measured = [row.inodes, row.size].filter((value) => value !== null).length;
    if (measured === (committed ? 2 : 0)) return GONE;
    if (committed && usage === undefined) {
      return { outcome: 'refused', detail: 'its layer could not be measured' };
    }
    writer.setUsage(id, committed && usage !== undefined ? usage : null);
    return note(layout, { what: 'the row of a snapshot, as it was', why: message, row });
  });
}

function takeContradictions({ layout, writer }: RepairContext, { id, message }: Problem): RepairOutcome {
  const entries = id === undefined ? [] : writer.takeContradictions(id);
  if (entries.length === 0) return GONE;
  return note(layout, { what: 'entries of the removal journal', why: message, entries });
}

function correctHighWater({ layout, writer }: RepairContext): RepairOutcome {
  return writer.correctHighWater(highestIdOnDisk(layout)) ? DONE : GONE;
}
