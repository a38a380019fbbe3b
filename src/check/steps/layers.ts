import { SnapshotError, toSnapshotError } from '../../errors.ts';
import { type MeasureOptions, type Verdict, verifySeal } from '../../layers/seal.ts';
import { SnapshotsView } from '../../layers/snapshots-view.ts';
import { Meter } from '../../layers/usage.ts';
import { Whiteouts } from '../../layers/whiteouts.ts';
import { isSystemError } from '../../linux/errno.ts';
import type { TreeEntry } from '../../linux/tree-walk.ts';
import type { SeenSnapshot } from '../../metadata/repair/inspector.ts';
import type { FindingCode } from '../../report.ts';
import { type CheckContext, isWanted } from '../context.ts';
import type { Trace } from './layers.findings.ts';

/** Layers with one of these problems, if it is an error, cannot be read. */
const UNREADABLE: ReadonlySet<FindingCode> = new Set([
  'directory-missing',
  'layer-missing',
  'not-a-directory',
  'mounted-over',
]);

/** Checks what the layers of committed snapshots hold against their seals. */
export async function checkLayers(context: CheckContext): Promise<void> {
  const { rows, progress, problems } = context;
  const unreadable = new Set<number | undefined>();
  for (const { code, severity, id } of problems) {
    if (severity === 'error' && UNREADABLE.has(code)) unreadable.add(id);
  }
  const layers = [...rows.snapshots.values()].filter(
    ({ id, kind }) => kind === 'committed' && isWanted(context, id) && !unreadable.has(id),
  );
  progress.expect(layers.reduce((sum, { inodes }) => sum + (inodes ?? 0), 0));
  const view = new SnapshotsView(context.held);
  try {
    for (const row of layers) {
      const meter = new Meter();
      let counted = 0;
      const count = (): void => {
        const more = meter.entries - counted;
        counted = meter.entries;
        progress.advance(more);
      };
      await checkLayer(context, row, view, { meter, onSlice: count });
      count();
    }
  } finally {
    view.close();
  }
}

async function checkLayer(
  context: CheckContext,
  row: SeenSnapshot,
  view: SnapshotsView,
  measuring: Pick<MeasureOptions, 'meter' | 'onSlice'>,
): Promise<void> {
  const { layout, settings, inspector, rows, problems } = context;
  const { id, seal, parentId } = row;
  const path = layout.fs(id);
  try {
    const whiteouts = new Whiteouts();
    let oldest = Infinity;
    const look = (entry: TreeEntry): void => {
      oldest = Math.min(oldest, entry.status.modifiedSecond);
      if (parentId === null) whiteouts.look(entry);
    };
    const verdict = await verifySeal(view.walk(id), seal, {
      contents: settings.contents === true,
      look,
      ...measuring,
    });
    addVerdict(context, row, verdict, oldest);
    const { found } = whiteouts;
    if (found === undefined || inspector.snapshot(id) === undefined) return;
    problems.add('whiteout-in-base', { snapshot: rows.quote(id), found, id, path });
  } catch (error) {
    if (!isSystemError(error) && !(error instanceof SnapshotError)) throw error;
    if (inspector.snapshot(id)?.seal !== seal) return;
    const failure = toSnapshotError(error, 'reading');
    problems.add('layer-unreadable', { snapshot: rows.quote(id), error: failure, id, path });
  }
}

function addVerdict(
  { layout, inspector, rows, problems }: CheckContext,
  { id, seal, inUse, inodes: sealedInodes, size, createdUs }: SeenSnapshot,
  { seal: state, contentsWhole, usage }: Verdict,
  /** The second in which the file that was modified first was modified. */
  oldest: number,
): void {
  const facts = { snapshot: rows.quote(id), id, path: layout.fs(id) };
  const inodes = { now: usage.inodes, sealed: sealedInodes };
  const copied = oldest > createdUs / 1e6 && inodes.now === inodes.sealed;
  if (state === 'broken' || (sealedInodes !== null && usage.inodes !== sealedInodes)) {
    // If it was deleted meanwhile, the deletion may have been in progress.
    if (inspector.snapshot(id)?.seal !== seal) return;
    if (inUse === 1) problems.add('seal-in-use', { ...facts, inodes });
    else if (state !== 'broken') problems.add('usage-differs', { ...facts, inodes });
    else
      problems.add('seal-broken', {
        ...facts,
        inodes,
        trace: traceOf({ copied, contentsWhole }),
      });
    return;
  }
  if (size !== null && usage.size !== size) {
    problems.add('blocks-differ', { ...facts, now: usage.size, sealed: size });
  }
  if (state === 'unknown') problems.add('seal-unknown', facts);
}

function traceOf({ copied, contentsWhole }: { copied: boolean; contentsWhole: boolean }): Trace | undefined {
  if (copied) return contentsWhole ? 'copied-whole' : 'copied';
  return contentsWhole ? 'metadata' : undefined;
}
