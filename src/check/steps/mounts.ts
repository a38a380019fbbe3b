import { StoreMounts } from '../../layers/store-mounts.ts';
import { type CheckContext, isWanted } from '../context.ts';
import { damagedIds } from '../rebuild.ts';

/** Checks for live overlays on layers that are damaged, to be deleted, or of no snapshot. */
export async function checkMounts(context: CheckContext): Promise<void> {
  const { held, rows, progress, problems } = context;
  const damaged = damagedIds(problems, rows);
  const seen = new Set<string>();
  const survey = await new StoreMounts(held).survey();
  progress.advance(survey.count);
  for (const { id, mountPoint, where } of survey.overlays) {
    if (!isWanted(context, id) || seen.has(`${id} ${where}`)) continue;
    seen.add(`${id} ${where}`);
    addUse(context, damaged, { id, mount: where, path: mountPoint });
  }
}

/** Adds what is wrong with a mount that uses the layer of an id, going by what the database says now. */
function addUse(
  { layout, inspector, rows, problems }: CheckContext,
  damaged: ReadonlySet<number>,
  { id, mount, path }: { id: number; mount: string; path: string },
): void {
  const facts = { id, mount, directory: layout.directory(id), path };
  if (damaged.has(id)) {
    problems.add('mount-of-damaged', { ...facts, snapshot: rows.quote(id) });
  } else if (inspector.snapshot(id) === undefined) {
    const journalled = inspector.removalsOf(id).length > 0;
    problems.add(journalled ? 'mount-of-removed' : 'mount-of-unknown', facts);
  }
}
