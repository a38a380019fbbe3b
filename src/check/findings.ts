import type { FindingCode, Step } from '../report.ts';
import type { Description } from './description.ts';
import { DATABASE_FINDINGS } from './steps/database.findings.ts';
import { DIRECTORY_FINDINGS } from './steps/directories.findings.ts';
import { GRAPH_FINDINGS } from './steps/graph.findings.ts';
import { LAYER_FINDINGS } from './steps/layers.findings.ts';
import { LEFTOVER_FINDINGS } from './steps/leftovers.findings.ts';
import { PLACE_FINDINGS } from './steps/place.findings.ts';
import { MOUNT_FINDINGS } from './steps/mounts.findings.ts';

/** The steps of a check, in their order. */
export const STEPS = [
  'database',
  'graph',
  'directories',
  'layers',
  'leftovers',
  'mounts',
] as const satisfies readonly Step[];

/** The descriptions of all findings by their codes, from the tables beside the steps. */
export const DESCRIPTIONS = {
  ...DATABASE_FINDINGS,
  ...GRAPH_FINDINGS,
  ...PLACE_FINDINGS,
  ...DIRECTORY_FINDINGS,
  ...LAYER_FINDINGS,
  ...LEFTOVER_FINDINGS,
  ...MOUNT_FINDINGS,
} satisfies Record<FindingCode, Description>;

/** The description of a finding. */
export function descriptionOf(code: FindingCode): Description {
  return DESCRIPTIONS[code];
}

/** What is the same for all findings of a code. */
type Listed<S extends Step, Table> = {
  readonly [Code in keyof Table]: Flat<
    { readonly step: S } & SeverityOf<Table[Code]> & DamageOf<Table[Code]> & RepairOf<Table[Code]>
  >;
};

type Flat<T> = { readonly [Key in keyof T]: T[Key] };
type SeverityOf<D> = D extends { severity: infer S } ? { readonly severity: S } : unknown;
type DamageOf<D> = D extends { damagesLayer: true } ? { readonly damagesLayer: true } : unknown;
type RepairOf<D> = D extends { repair: { when: unknown } | { unlisted: true } }
  ? unknown
  : D extends { repair: { sentence: infer S } }
    ? { readonly repair: S }
    : unknown;

function list<S extends Step, Table extends Record<string, Description>>(
  step: S,
  table: Table,
): Listed<S, Table> {
  const entries = Object.entries(table).map(([code, { severity, damagesLayer, repair }]) => {
    const always = repair !== undefined && repair.when === undefined && repair.unlisted !== true;
    return [
      code,
      { step, severity, ...(damagesLayer && { damagesLayer }), ...(always && { repair: repair.sentence }) },
    ];
  });
  return Object.fromEntries(entries) as Listed<S, Table>;
}

/**
 * Every finding by its code: the step that reports it, its severity, whether it means that a layer is damaged, and
 * what repair does about it, if it does the same about every finding of the code. docs/check.md describes each.
 */
export const FINDINGS = {
  ...list('database', DATABASE_FINDINGS),
  ...list('graph', GRAPH_FINDINGS),
  ...list('directories', PLACE_FINDINGS),
  ...list('directories', DIRECTORY_FINDINGS),
  ...list('layers', LAYER_FINDINGS),
  ...list('leftovers', LEFTOVER_FINDINGS),
  ...list('mounts', MOUNT_FINDINGS),
};
