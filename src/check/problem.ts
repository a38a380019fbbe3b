import type { SchemaDifference } from '../metadata/schema.ts';
import { escapeHidden } from '../quote.ts';
import type { Finding, FindingCode, Severity } from '../report.ts';
import type { RepairPhase } from './description.ts';
import { type DESCRIPTIONS, FINDINGS, descriptionOf } from './findings.ts';
import type { Rows } from './rows.ts';

/** What is known about a finding beside what its message says. */
interface Place {
  /** The id that it concerns. */
  readonly id?: number | undefined;
  /** Where on disk; in raw bytes if the name may be anything. */
  readonly path?: string | Buffer;
  /** How the schema differs, for the repair. */
  readonly difference?: SchemaDifference;
  /** False if something else that was found rules out the repair that is described. */
  readonly repairable?: boolean;
}

type Argument<F> = F extends (facts: infer Facts) => unknown ? Facts : unknown;
type Method<D, Name extends string> = D extends { readonly [N in Name]: infer F } ? Argument<F> : unknown;
type RepairOf<D> = D extends { readonly repair: infer R } ? R : unknown;

/** What the description of a finding needs to know of one such finding. */
type FactsOf<D> = Method<D, 'message'> &
  Method<D, 'severityOf'> &
  Method<RepairOf<D>, 'when'> &
  Method<RepairOf<D>, 'exactly'>;

/** The facts about a finding of a code. */
export type Facts<Code extends FindingCode> = Place & FactsOf<(typeof DESCRIPTIONS)[Code]>;

/** Something that is not as it should be, with what repair needs to know about it. */
export interface Problem extends Omit<Place, 'repairable'> {
  readonly code: FindingCode;
  readonly severity: Severity;
  readonly message: string;
  /** What repair does about it; `undefined` if it leaves it alone. */
  readonly repair: { readonly sentence: string; readonly phase: RepairPhase } | undefined;
}

/** Makes a problem from the description of its code and the facts. */
export function problem<Code extends FindingCode>(code: Code, facts: Facts<Code>): Problem {
  const description = descriptionOf(code);
  const { repair } = description;
  const { id, path, difference, repairable = true } = facts;
  const repaired = repair !== undefined && repairable && (repair.when?.(facts) ?? true);
  return {
    code,
    severity: description.severityOf?.(facts) ?? description.severity,
    message: escapeHidden(description.message(facts)),
    id,
    ...(path !== undefined && { path }),
    ...(difference !== undefined && { difference }),
    repair: repaired
      ? { sentence: repair.exactly?.(facts) ?? repair.sentence, phase: repair.phase }
      : undefined,
  };
}

/** A problem as the report has it. */
export function toFinding({ code, severity, message, id, path, repair }: Problem, rows: Rows): Finding {
  return {
    code,
    step: FINDINGS[code].step,
    severity,
    message,
    snapshot: id === undefined ? null : (rows.snapshots.get(id)?.name ?? null),
    id: id ?? null,
    path: path?.toString() ?? null,
    repair: repair?.sentence ?? null,
  };
}
