import { SnapshotError, toSnapshotError } from '../../errors.ts';
import { type MeasureOptions, type Verdict, verifySeal } from '../../layers/seal.ts';
import { SnapshotsView } from '../../layers/snapshots-view.ts';
import { Meter } from '../../layers/usage.ts';
import { isSystemError } from '../../linux/errno.ts';
import type { SeenSnapshot } from '../../metadata/repair/inspector.ts';
import type { FindingCode } from '../../report.ts';
import { type CheckContext, isWanted } from '../context.ts';

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
  const { id, seal } = row;
  const path = layout.fs(id);
  try {
    const verdict = await verifySeal(view.walk(id), seal, {
      contents: settings.contents === true,
      ...measuring,
    });
    addVerdict(context, row, verdict);
  } catch (error) {
    if (!isSystemError(error) && !(error instanceof SnapshotError)) throw error;
    if (inspector.snapshot(id)?.seal !== seal) return;
    const failure = toSnapshotError(error, 'reading');
    problems.add('layer-unreadable', { snapshot: rows.quote(id), error: failure, id, path });
  }
}

function addVerdict(
  { layout, inspector, rows, problems }: CheckContext,
  { id, seal, inUse, inodes: sealedInodes, size }: SeenSnapshot,
  { seal: state, usage }: Verdict,
): void {
  const facts = { snapshot: rows.quote(id), id, path: layout.fs(id) };
  const inodes = { now: usage.inodes, sealed: sealedInodes };
  if (state === 'broken' || (sealedInodes !== null && usage.inodes !== sealedInodes)) {
    // If it was deleted meanwhile, the deletion may have been in progress.
    if (inspector.snapshot(id)?.seal !== seal) return;
    if (inUse === 1) problems.add('seal-in-use', { ...facts, inodes });
    else problems.add(state === 'broken' ? 'seal-broken' : 'usage-differs', { ...facts, inodes });
    return;
  }
  if (size !== null && usage.size !== size) {
    problems.add('blocks-differ', { ...facts, now: usage.size, sealed: size });
  }
  if (state === 'unknown') problems.add('seal-unknown', facts);
}
