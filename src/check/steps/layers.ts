import { toSnapshotError } from '../../errors.ts';
import { verifySeal } from '../../layers/seal.ts';
import { Meter } from '../../layers/usage.ts';
import { isSystemError } from '../../linux/errno.ts';
import { SnapshotError } from '../../errors.ts';
import type { SeenSnapshot } from '../../metadata/repair/inspector.ts';
import type { CheckContext } from '../context.ts';
import type { TreeEntry } from '../../linux/tree.ts';

/** What the layers of committed snapshots hold, against what was sealed. */
export async function checkLayers(context: CheckContext): Promise<void> {
  const committed = [...context.snapshots.values()].filter(
    ({ id, kind }) => kind === 'committed' && context.wants(id) && !context.covered.has(id),
  );
  context.expect(committed.reduce((sum, { inodes }) => sum + (inodes ?? 0), 0));
  const unreadable = new Set(
    context.found.flatMap(({ finding: { code, id } }) =>
      (code === 'directory-missing' || code === 'layer-missing' || code === 'not-a-directory') && id !== null
        ? [id]
        : [],
    ),
  );
  for (const row of committed) {
    if (!unreadable.has(row.id)) await checkLayer(context, row);
  }
}

/** Counts what a walk has passed as looked at. */
class CountingMeter extends Meter {
  readonly #context: CheckContext;

  constructor(context: CheckContext) {
    super();
    this.#context = context;
  }

  override add(entry: TreeEntry): void {
    super.add(entry);
    this.#context.looked();
  }
}

async function checkLayer(context: CheckContext, row: SeenSnapshot): Promise<void> {
  const { id, seal } = row;
  const path = context.layout.fs(id);
  const contents = context.settings.contents === true;
  const me = context.quote(id);
  try {
    const meter = new CountingMeter(context);
    const verdict = await verifySeal(path, seal, { contents, meter, onSlice: () => context.looked(0) });
    const inodes = row.inodes !== null && verdict.usage.inodes !== row.inodes;
    const holds = `it holds ${verdict.usage.inodes} inodes, and ${row.inodes} when it was committed`;
    if (verdict.seal === 'broken' || inodes) {
      // It may have been deleted meanwhile, and then it is in the middle of that.
      if (context.inspector.snapshot(id)?.seal !== seal) return;
      if (row.inUse === 1) {
        context.add('seal-in-use', {
          message: `the layer of ${me} is not as it was sealed, but something was using it then (${holds})`,
          id,
          path,
        });
      } else if (verdict.seal === 'broken') {
        const how = inodes ? ` (${holds})` : '';
        context.add('seal-broken', {
          message: `the layer of ${me} has changed since its commit${how}`,
          id,
          path,
        });
      } else {
        context.add('usage-differs', {
          message: `the layer of ${me} is not what its row says: ${holds}`,
          id,
          path,
        });
      }
      return;
    }
    if (row.size !== null && verdict.usage.size !== row.size) {
      context.add('blocks-differ', {
        message: `the layer of ${me} takes ${verdict.usage.size} bytes on disk, and ${row.size} when it was committed`,
        id,
        path,
      });
    }
    if (verdict.seal === 'unknown') {
      const message = `the layer of ${me} has no seal that is known here: nothing tells whether it is as it was`;
      context.add('seal-unknown', { message, id, path });
    }
  } catch (error) {
    if (!isSystemError(error) && !(error instanceof SnapshotError)) throw error;
    if (context.inspector.snapshot(id)?.seal !== seal) return;
    context.add('layer-unreadable', {
      message: `the layer of ${me} cannot be read: ${toSnapshotError(error, 'reading').message}`,
      id,
      path,
    });
  }
}
