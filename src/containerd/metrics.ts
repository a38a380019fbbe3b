import { Counter, Gauge, Histogram, Registry, collectDefaultMetrics } from 'prom-client';
import type { CallRecord } from './calls.ts';
import { SNAPSHOTS } from './protocol.ts';
import type { Report, Severity } from '../report.ts';

const SEVERITIES: readonly Severity[] = ['error', 'warning', 'info'];

/** Metrics of a server in the format of Prometheus. */
export class Metrics {
  readonly #registry = new Registry();
  readonly #calls: Counter<'method' | 'code'>;
  readonly #durations: Histogram<'method'>;
  readonly #writes: Histogram;
  readonly #checked: Gauge;
  readonly #findings: Gauge<'severity'>;

  /** `pendingRemovals` is called whenever the metrics are read. */
  constructor(pendingRemovals: () => Promise<number>) {
    const registers = [this.#registry];
    collectDefaultMetrics({ register: this.#registry });
    this.#calls = new Counter({
      name: 'overlite_calls_total',
      help: 'Calls of the snapshots service that have ended, by method and gRPC code',
      labelNames: ['method', 'code'],
      registers,
    });
    this.#durations = new Histogram({
      name: 'overlite_call_duration_seconds',
      help: 'How long calls of the snapshots service took, by method',
      labelNames: ['method'],
      buckets: [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 60],
      registers,
    });
    this.#writes = new Histogram({
      name: 'overlite_transaction_writes',
      help: 'How many writes shared a transaction, and so a sync',
      buckets: [1, 2, 4, 8, 16, 32, 64, 128, 256],
      registers,
    });
    // It registers itself, and the registry reads it.
    void new Gauge({
      name: 'overlite_pending_removals',
      help: 'Removed snapshots whose directories are still to be deleted, as the removal journal has them',
      registers,
      async collect() {
        this.set(await pendingRemovals());
      },
    });
    this.#checked = new Gauge({
      name: 'overlite_check_timestamp_seconds',
      help: 'When the last check ended; 0 if there was none',
      registers,
    });
    this.#findings = new Gauge({
      name: 'overlite_check_findings',
      help: 'What the last check found, by severity',
      labelNames: ['severity'],
      registers,
    });
  }

  /** Counts a call that has ended. */
  onCall({ service, method, code, duration }: CallRecord): void {
    if (service !== SNAPSHOTS) return;
    this.#calls.inc({ method, code });
    this.#durations.observe({ method }, duration / 1000);
  }

  /** Counts a transaction. */
  onTransaction(writes: number): void {
    this.#writes.observe(writes);
  }

  /** Records the result of a check. */
  onCheck({ findings }: Report): void {
    this.#checked.setToCurrentTime();
    for (const severity of SEVERITIES) {
      this.#findings.set({ severity }, findings.filter((finding) => finding.severity === severity).length);
    }
  }

  /** All metrics as text, with the content type of the text. */
  async read(): Promise<{ readonly type: string; readonly text: string }> {
    return { type: this.#registry.contentType, text: await this.#registry.metrics() };
  }
}
