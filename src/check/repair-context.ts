import type { HeldRoot } from '../layers/held-root.ts';
import type { Layout } from '../layers/layout.ts';
import { type Note, writeNote } from '../layers/lost-and-found.ts';
import type { MountSurvey } from '../layers/store-mounts.ts';
import type { RepairWriter } from '../metadata/repair/repair-writer.ts';
import type { Repair } from '../report.ts';
import type { Problem } from './problem.ts';

/** What repairs of the phase `files` work with: the database is not open yet. */
export interface FileRepairContext {
  /** The root, below which everything is changed. */
  readonly held: HeldRoot;
  /** Its paths. */
  readonly layout: Layout;
}

/** What all other repairs work with. */
export interface RepairContext extends FileRepairContext {
  readonly writer: RepairWriter;
  /** The mounts of all visible namespaces, when the repair began. */
  readonly mounts: MountSurvey;
}

/** What came of one repair. */
export interface RepairOutcome extends Pick<Repair, 'detail'> {
  readonly outcome: Exclude<Repair['outcome'], 'planned'>;
}

export const DONE: RepairOutcome = { outcome: 'done' };

/** The problem is not there any more. */
export const GONE: RepairOutcome = { outcome: 'gone' };

/** Repairs one problem, if it is still there. */
export type RepairFunction<Context = RepairContext> = (
  context: Context,
  problem: Problem,
) => RepairOutcome | Promise<RepairOutcome>;

/** The codes of a table that have a repair. */
type Repairable<Table> = {
  [Code in keyof Table]: Table[Code] extends { readonly repair: object } ? Code : never;
}[keyof Table];

type ContextOf<D> = D extends { readonly repair: { readonly phase: 'files' } }
  ? FileRepairContext
  : RepairContext;

/** A function for each code of a table that has a repair, and for no other. */
export type Repairs<Table> = {
  readonly [Code in Repairable<Table>]: RepairFunction<ContextOf<Table[Code]>>;
};

/** Has a repair run with the write lock held, all or nothing, and only if the root is still in its place. */
export function locked(run: (context: RepairContext, problem: Problem) => RepairOutcome): RepairFunction {
  return (context, problem) =>
    context.writer.locked(() => {
      context.held.checkPlace();
      return run(context, problem);
    });
}

/** Writes a note of what a repair has removed from the database to `lost+found/`. */
export function note(held: HeldRoot, text: Note): RepairOutcome {
  return { outcome: 'done', detail: writeNote(held, text) };
}
