import type { HeldRoot } from '../../layers/held-root.ts';
import { SnapshotsView } from '../../layers/snapshots-view.ts';
import { measureUsage } from '../../layers/usage.ts';
import type { Usage } from '../../snapshot.ts';
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

async function setUsage({ held, writer }: RepairContext, { id, message }: Problem): Promise<RepairOutcome> {
  if (id === undefined) return GONE;
  // Before the lock is taken, since it takes long. The layer of a committed snapshot does not change.
  const usage = writer.snapshot(id)?.kind === 'committed' ? await usageOf(held, id) : undefined;
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
    return note(held, { what: 'the row of a snapshot, as it was', why: message, row });
  });
}

async function usageOf(held: HeldRoot, id: number): Promise<Usage> {
  const view = new SnapshotsView(held);
  try {
    return await measureUsage(view.walk(id));
  } finally {
    view.close();
  }
}

function takeContradictions({ held, writer }: RepairContext, { id, message }: Problem): RepairOutcome {
  const entries = id === undefined ? [] : writer.takeContradictions(id);
  if (entries.length === 0) return GONE;
  return note(held, { what: 'entries of the removal journal', why: message, entries });
}

function correctHighWater({ held, writer }: RepairContext): RepairOutcome {
  return writer.correctHighWater(highestIdOnDisk(held)) ? DONE : GONE;
}
