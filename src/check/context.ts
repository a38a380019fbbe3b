import type { HeldRoot } from '../layers/held-root.ts';
import type { Layout } from '../layers/layout.ts';
import type { Inspector } from '../metadata/repair/inspector.ts';
import type { CheckOptions } from '../report.ts';
import type { Problems } from './problems.ts';
import type { Progress } from './progress.ts';
import type { Rows } from './rows.ts';

/** The options of a check that go to the process in which it runs. */
export type CheckSettings = Omit<CheckOptions, 'signal' | 'onProgress'>;

/** What the step `database` works with. */
export interface DatabaseContext {
  /** The root, below which everything is read. */
  readonly held: HeldRoot;
  /** Its paths, for what is reported. */
  readonly layout: Layout;
  readonly settings: CheckSettings;
  readonly inspector: Inspector;
  readonly progress: Progress;
  readonly problems: Problems;
}

/** What the other steps work with. */
export interface CheckContext extends DatabaseContext {
  /** The rows as of one moment; `inspector` reads them as of now. */
  readonly rows: Rows;
  /** The ids to which the check is limited; `undefined` for all. */
  readonly only: ReadonlySet<number> | undefined;
}

/** Whether an id is to be checked. */
export function isWanted({ only }: CheckContext, id: number): boolean {
  return only === undefined || only.has(id);
}
