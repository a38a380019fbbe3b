import type { Layout } from '../layers/layout.ts';
import type { Inspector, SeenRemoval, SeenSnapshot } from '../metadata/repair/inspector.ts';
import type { SchemaDifference } from '../metadata/schema.ts';
import { quote } from '../quote.ts';
import type { Usage } from '../snapshot.ts';
import { describe } from './findings.ts';
import type {
  CheckOptions,
  CheckProgress,
  Finding,
  FindingCode,
  Rebuild,
  Severity,
  Step,
} from '../report.ts';

/** How often progress is told, in milliseconds. */
const PROGRESS_MS = 100;

/** What is said of a finding beside its code. */
export interface Details {
  readonly message: string;
  readonly id?: number | undefined;
  /** Where on disk, in raw bytes where the name may be anything. */
  readonly path?: string | Buffer;
  /** Another severity than the code's own. */
  readonly severity?: Severity;
  /** Another repair than the code's own, or none. */
  readonly repair?: string | null;
  /** What the layer holds, where repair needs it. */
  readonly usage?: Usage;
  readonly difference?: SchemaDifference;
}

/** A finding with what repair needs of it. */
export interface Found {
  readonly finding: Finding;
  readonly details: Details;
}

/** Ends a check whose time is over. */
export class TimeOver extends Error {}

/** The options of a check, as they come to where it runs. */
export type Settings = Omit<CheckOptions, 'signal' | 'onProgress'>;

/** A store that is being checked: what is known of it, and what was found. */
export class CheckContext {
  readonly layout: Layout;
  readonly settings: Settings;
  readonly found: Found[] = [];
  /** The rows, in the order of ids, as they were when the check read them. */
  readonly snapshots = new Map<number, SeenSnapshot>();
  readonly removals = new Map<number, SeenRemoval[]>();
  highWater: number | undefined;
  /** What is mounted over the directory of an id, or over its layer. */
  readonly covered = new Map<number, string>();
  /** The ids that are to be checked; all unless given. */
  only: ReadonlySet<number> | undefined;
  #inspector: Inspector | undefined;
  readonly #onProgress: (progress: CheckProgress) => void;
  readonly #deadline: number;
  #step: Step = 'database';
  #checked = 0;
  #total: number | null = null;
  #told = 0;

  constructor(
    layout: Layout,
    settings: Settings,
    deadline: number,
    onProgress: (progress: CheckProgress) => void,
  ) {
    this.layout = layout;
    this.settings = settings;
    this.#deadline = deadline;
    this.#onProgress = onProgress;
  }

  get inspector(): Inspector {
    if (this.#inspector === undefined) throw new Error('the database has not been opened');
    return this.#inspector;
  }

  set inspector(inspector: Inspector) {
    this.#inspector = inspector;
  }

  /** Lets go of the database. What was found stays. */
  close(): void {
    this.#inspector?.close();
  }

  /** Begins a step. */
  begin(step: Step): void {
    this.#step = step;
    this.#checked = 0;
    this.#total = null;
    this.#told = performance.now();
    this.#onProgress({ step, checked: 0, total: null });
  }

  /** How many things this step has looked at. */
  get checked(): number {
    return this.#checked;
  }

  /** Says how many things this step is going to look at. */
  expect(total: number): void {
    this.#total = total;
  }

  /** Says that more was looked at. @throws {TimeOver} */
  looked(count = 1): void {
    this.#checked += count;
    const now = performance.now();
    if (now > this.#deadline) throw new TimeOver();
    if (now - this.#told < PROGRESS_MS) return;
    this.#told = now;
    this.#onProgress({ step: this.#step, checked: this.#checked, total: this.#total });
  }

  /** Whether a snapshot is to be checked. */
  wants(id: number): boolean {
    return this.only === undefined || this.only.has(id);
  }

  add(code: FindingCode, details: Details): void {
    const { step, severity, repair } = describe(code);
    const { id, path, message } = details;
    const finding: Finding = {
      code,
      step,
      severity: details.severity ?? severity,
      message,
      snapshot: id === undefined ? null : (this.snapshots.get(id)?.name ?? null),
      id: id ?? null,
      path: path === undefined ? null : path.toString(),
      repair: details.repair === undefined ? (repair ?? null) : details.repair,
    };
    this.found.push({ finding, details });
  }

  has(code: FindingCode, id?: number): boolean {
    return this.found.some(({ finding }) => finding.code === code && (id === undefined || finding.id === id));
  }

  /** The ids of the snapshots whose own layer is damaged. */
  damaged(): Set<number> {
    const ids = this.found.flatMap(({ finding }) =>
      describe(finding.code).damagesLayer === true && finding.severity === 'error' && finding.id !== null
        ? [finding.id]
        : [],
    );
    return new Set(ids.filter((id) => this.snapshots.has(id)));
  }

  /** What has to be built anew: what is damaged, and all that stands on it. */
  rebuild(): Rebuild[] {
    const children = new Map<number, number[]>();
    for (const { id, parentId } of this.snapshots.values()) {
      if (parentId === null) continue;
      const siblings = children.get(parentId);
      if (siblings === undefined) children.set(parentId, [id]);
      else siblings.push(id);
    }
    const because = new Map<number, number>();
    const queue = [...this.damaged()];
    for (const id of queue) because.set(id, id);
    for (let id = queue.shift(); id !== undefined; id = queue.shift()) {
      for (const child of children.get(id) ?? []) {
        if (because.has(child)) continue;
        because.set(child, because.get(id) ?? id);
        queue.push(child);
      }
    }
    return [...because]
      .toSorted(([a], [b]) => a - b)
      .map(([id, cause]) => ({
        id,
        name: this.nameOf(id),
        kind: this.snapshots.get(id)?.kind ?? 'unknown',
        because: this.nameOf(cause),
      }));
  }

  nameOf(id: number): string {
    return this.snapshots.get(id)?.name ?? `id ${id}`;
  }

  /** A snapshot for a message. */
  quote(id: number): string {
    const row = this.snapshots.get(id);
    return row === undefined ? `id ${id}` : quote(row.name);
  }
}
