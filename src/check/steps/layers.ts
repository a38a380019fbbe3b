import { toSnapshotError } from '../../errors.ts';
import { verifySeal } from '../../driver/seal.ts';
import { Meter } from '../../driver/usage.ts';
import { isSystemError } from '../../linux/errno.ts';
import { SnapshotError } from '../../errors.ts';
import type { SeenSnapshot } from '../../metadata/inspector.ts';
import type { Subject } from '../subject.ts';
import type { TreeEntry } from '../../linux/tree.ts';

/** What the layers of committed snapshots hold, against what was sealed. */
export async function checkLayers(subject: Subject): Promise<void> {
  const committed = [...subject.snapshots.values()].filter(
    ({ id, kind }) => kind === 'committed' && subject.wants(id) && !subject.covered.has(id),
  );
  subject.expect(committed.reduce((sum, { inodes }) => sum + (inodes ?? 0), 0));
  const unreadable = new Set(
    subject.found.flatMap(({ finding: { code, id } }) =>
      (code === 'directory-missing' || code === 'layer-missing' || code === 'not-a-directory') && id !== null
        ? [id]
        : [],
    ),
  );
  for (const row of committed) {
    if (!unreadable.has(row.id)) await checkLayer(subject, row);
  }
}

/** Counts what a walk has passed as looked at. */
class CountingMeter extends Meter {
  readonly #subject: Subject;

  constructor(subject: Subject) {
    super();
    this.#subject = subject;
  }

  override add(entry: TreeEntry): void {
    super.add(entry);
    this.#subject.looked();
  }
}

async function checkLayer(subject: Subject, row: SeenSnapshot): Promise<void> {
  const { id, seal } = row;
  const path = subject.layout.fs(id);
  const contents = subject.settings.contents === true;
  const me = subject.quote(id);
  try {
    const meter = new CountingMeter(subject);
    const verdict = await verifySeal(path, seal, { contents, meter, onSlice: () => subject.looked(0) });
    const inodes = row.inodes !== null && verdict.usage.inodes !== row.inodes;
    const holds = `it holds ${verdict.usage.inodes} inodes, and ${row.inodes} when it was committed`;
    if (verdict.seal === 'broken' || inodes) {
      // It may have been deleted meanwhile, and then it is in the middle of that.
      if (subject.inspector.snapshot(id)?.seal !== seal) return;
      if (row.inUse === 1) {
        subject.add('seal-in-use', {
          message: `the layer of ${me} is not as it was sealed, but something was using it then (${holds})`,
          id,
          path,
        });
      } else if (verdict.seal === 'broken') {
        const how = inodes ? ` (${holds})` : '';
        subject.add('seal-broken', {
          message: `the layer of ${me} has changed since its commit${how}`,
          id,
          path,
        });
      } else {
        subject.add('usage-differs', {
          message: `the layer of ${me} is not what its row says: ${holds}`,
          id,
          path,
        });
      }
      return;
    }
    if (row.size !== null && verdict.usage.size !== row.size) {
      subject.add('blocks-differ', {
        message: `the layer of ${me} takes ${verdict.usage.size} bytes on disk, and ${row.size} when it was committed`,
        id,
        path,
      });
    }
    if (verdict.seal === 'unknown') {
      const message = `the layer of ${me} has no seal that is known here: nothing tells whether it is as it was`;
      subject.add('seal-unknown', { message, id, path });
    }
  } catch (error) {
    if (!isSystemError(error) && !(error instanceof SnapshotError)) throw error;
    if (subject.inspector.snapshot(id)?.seal !== seal) return;
    subject.add('layer-unreadable', {
      message: `the layer of ${me} cannot be read: ${toSnapshotError(error, 'reading').message}`,
      id,
      path,
    });
  }
}
