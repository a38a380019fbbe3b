import type { CheckContext } from '../../src/check/context.ts';
import { Problems } from '../../src/check/problems.ts';
import { Progress } from '../../src/check/progress.ts';
import { Rows } from '../../src/check/rows.ts';
import { HeldRoot } from '../../src/layers/held-root.ts';
import { Inspector } from '../../src/metadata/repair/inspector.ts';

/** What a step of a check works with, on the database of a store that is open nowhere in this process. */
export function openCheckContext(
  root: string,
  scratch: () => string,
  changes: Partial<CheckContext> = {},
): CheckContext {
  const held = new HeldRoot(root);
  const { layout } = held;
  const inspector = Inspector.open(layout.database, scratch);
  return {
    held,
    layout,
    settings: {},
    inspector,
    progress: new Progress(() => {}, Infinity),
    problems: new Problems(),
    rows: Rows.read(inspector),
    only: undefined,
    ...changes,
  };
}
