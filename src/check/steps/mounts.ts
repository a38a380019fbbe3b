import { lookAtAllMounts } from '../../linux/mountinfo.ts';
import type { CheckContext } from '../context.ts';
import type { FindingCode } from '../../report.ts';

/** Overlays that are mounted now, over what they should not be. */
export async function checkMounts(context: CheckContext): Promise<void> {
  const { layout } = context;
  const rebuild = new Set(context.damaged());
  const namespaces = await lookAtAllMounts();
  const told = new Set<string>();
  for (const { own, entries } of namespaces) {
    for (const { type, mountPoint, layers } of entries) {
      context.looked();
      if (type !== 'overlay') continue;
      for (const layer of layers) {
        const id = layer.startsWith('/') ? layout.idOf(layer) : undefined;
        if (id === undefined || !context.wants(id)) continue;
        const finding = whatIs(context, id, rebuild);
        const where = `${mountPoint}${own ? '' : ' in another mount namespace'}`;
        if (finding === undefined || told.has(`${id} ${where}`)) continue;
        told.add(`${id} ${where}`);
        context.add(finding.code, {
          message: `the overlay at ${where} uses ${layout.directory(id)}, ${finding.words}`,
          id,
          path: mountPoint,
        });
      }
    }
  }
}

/** What is wrong with using an id's layer, if anything is: with what the database says now. */
function whatIs(
  context: CheckContext,
  id: number,
  damaged: ReadonlySet<number>,
): { code: FindingCode; words: string } | undefined {
  if (damaged.has(id)) {
    return { code: 'mount-of-damaged', words: `the layer of ${context.quote(id)}, which is damaged` };
  }
  if (context.inspector.snapshot(id) !== undefined) return undefined;
  return context.inspector.removalsOf(id).length > 0
    ? { code: 'mount-of-removed', words: 'which is to be deleted once it is not used any more' }
    : { code: 'mount-of-unknown', words: 'which belongs to no snapshot' };
}
