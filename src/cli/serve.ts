import { resolve } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { InvalidArgumentError, Option } from 'commander';
import type { CallRecord } from '../containerd/calls.ts';
import type { Metrics } from '../containerd/metrics.ts';
import { loadOptional } from '../containerd/optional.ts';
import type { OverlayDriver } from '../driver/driver.ts';
import { SnapshotError, toSnapshotError } from '../errors.ts';
import { notifyManager, takePassedSockets } from '../linux/notify.ts';
import { quote } from '../quote.ts';
import {
  type CommittingOptions,
  durabilityOption,
  sealOption,
  toMilliseconds,
  writeCommand,
} from './command.ts';
import { LOG_LEVELS, Log, type LogLevel } from './log.ts';
import { endWhenStopped, stopSignal } from './stopping.ts';
import { openOrCreateStore } from './store.ts';

interface ServeCommandOptions extends CommittingOptions {
  readonly address?: string;
  readonly name?: string;
  readonly logLevel: LogLevel;
  readonly health?: true;
  readonly reflection?: true;
  readonly metrics?: string;
  readonly checkEvery?: number;
  readonly grace?: number;
  readonly mountOption?: string[];
  readonly remapIds?: true;
  readonly upperdirLabel?: true;
}

const GRPC = ['@grpc/grpc-js', '@grpc/proto-loader'];

/** `overlite serve` */
export const serveCommand = writeCommand('serve', 'Serve this store to containerd over a Unix socket', {
  examples: [
    'overlite serve --root /var/lib/overlite --address /run/overlite/overlite.sock',
    'overlite serve --address /run/overlite/overlite.sock --health --metrics 127.0.0.1:9323',
  ],
  note: `This also creates the store if the root is missing or empty. On SIGTERM or SIGINT it finishes the running calls and
exits with 0; a second signal ends it at once. The log is JSON, one line for each call that failed.`,
})
  .option('--address <socket>', 'the path of the socket; not needed if systemd passes one')
  .option('--name <name>', 'refuse requests for a snapshotter with another name')
  .addOption(
    new Option('--log-level <level>', 'how much to log; debug logs every call')
      .choices(LOG_LEVELS)
      .default('info'),
  )
  .option('--health', 'also serve grpc.health.v1')
  .option('--reflection', 'also serve grpc.reflection.v1')
  .option('--metrics <address>', 'serve metrics for Prometheus, on a socket or a loopback port')
  .option('--check-every <hours>', 'check the store at the start, and then every so many hours', toHours)
  .option('--grace <seconds>', 'how long running calls may take to finish (default: 30)', toMilliseconds)
  .addOption(sealOption())
  .addOption(durabilityOption())
  .option('--mount-option <option...>', 'more mount options for every overlay')
  .option('--remap-ids', 'turn the ID mapping labels into mount options')
  .option('--upperdir-label', 'report the path of the layer in a label')
  .action(async (options: ServeCommandOptions) => {
    endWhenStopped();
    const log = new Log(options.logLevel);
    const address = findAddress(options.address);
    refuseSeparators(options.root);
    const { serve } = await loadOptional(GRPC, () => import('../containerd/index.ts'));
    let metrics: Metrics | undefined;
    const { seal, durability, mountOption = [], remapIds = false, upperdirLabel = false } = options;
    await using driver = await openOrCreateStore(options, {
      asyncRemove: 'background',
      seal,
      durability,
      mountOptions: mountOption,
      remapIds,
      upperdirLabel,
      onTransaction: (writes) => metrics?.onTransaction(writes),
    });
    metrics = options.metrics === undefined ? undefined : await makeMetrics(driver);
    await using metricsServer = metrics && (await startMetricsServer(metrics, options.metrics ?? ''));
    const { name, health = false, reflection = false, grace } = options;
    const onCall = (call: CallRecord): void => {
      metrics?.onCall(call);
      logCall(log, call);
    };
    const server = await serve(driver, { address, name, health, reflection, onCall });
    const checking = checkEvery(driver, options.checkEvery, { log, metrics });
    log.say('info', 'serving', {
      root: options.root,
      address: server.address,
      ...(metricsServer && { metrics: metricsServer.address }),
    });
    notify(log, { READY: '1', STATUS: `serving on ${server.address}` });
    await stopped();
    notify(log, { STOPPING: '1', STATUS: 'finishing the running calls' });
    log.say('info', 'stopping');
    await server.close({ ...(grace !== undefined && { grace }) });
    await checking;
    await driver.close();
    log.say('info', 'stopped');
  });

function toHours(text: string): number {
  const hours = Number(text);
  // A timer waits for 2^31 ms at most, which is less than four weeks.
  if (text.trim() === '' || !(hours > 0 && hours <= 500)) {
    throw new InvalidArgumentError('It is not a number of hours up to 500.');
  }
  return hours * 3_600_000;
}

/** The socket to serve on: the one that was passed, or the path that was given. */
function findAddress(given: string | undefined): string | number {
  const [passed, ...more] = takePassedSockets();
  if (more.length > 0) {
    throw new SnapshotError('INVALID_ARGUMENT', `${more.length + 1} sockets were passed`, {
      hint: 'one ListenStream= is enough',
    });
  }
  const address = passed ?? given;
  if (address !== undefined) return address;
  throw new SnapshotError('INVALID_ARGUMENT', 'there is no socket to serve on', {
    hint: 'give --address, or let systemd pass a socket',
  });
}

/** containerd splits mount options itself, and does not know that separators in them can be escaped. */
function refuseSeparators(root: string): void {
  const path = resolve(root);
  if (!/[:,\\]/.test(path)) return;
  throw new SnapshotError(
    'INVALID_ARGUMENT',
    `containerd would misread mount options with ${quote(path)} in them`,
    {
      hint: 'choose a root without colons, commas and backslashes in its path',
    },
  );
}

async function makeMetrics(driver: OverlayDriver): Promise<Metrics> {
  const loaded = await loadOptional(['prom-client'], () => import('../containerd/metrics.ts'));
  return new loaded.Metrics(() => driver.pendingRemovals());
}

async function startMetricsServer(
  metrics: Metrics,
  address: string,
): Promise<AsyncDisposable & { address: string }> {
  const { serveMetrics } = await import('../containerd/metrics-server.ts');
  return serveMetrics(metrics, address);
}

/** Answers that containerd expects, since it calls to see whether something is there. */
const EXPECTED = new Set(['NOT_FOUND', 'ALREADY_EXISTS', 'CANCELLED']);

/** Answers that an operator has to look into. */
const SERIOUS = new Set(['INTERNAL', 'UNKNOWN', 'DATA_LOSS', 'UNAVAILABLE', 'RESOURCE_EXHAUSTED']);

function logCall(log: Log, { service, method, key, name, code, message, duration }: CallRecord): void {
  const details = {
    service,
    method,
    key,
    name,
    code,
    durationMs: Math.round(duration * 1000) / 1000,
  };
  if (code === 'OK') log.say('debug', 'done', details);
  else if (EXPECTED.has(code)) log.say('info', message, details);
  else log.say(SERIOUS.has(code) ? 'error' : 'warn', message, details);
}

/** Notifies the service manager, if there is one. If that fails, the server goes on. */
function notify(log: Log, state: Readonly<Record<string, string>>): void {
  try {
    notifyManager(state);
  } catch (error) {
    log.say('warn', toSnapshotError(error, 'notifying the service manager').message);
  }
}

/** Checks a store at intervals, until this process is asked to stop. */
async function checkEvery(
  driver: OverlayDriver,
  interval: number | undefined,
  { log, metrics }: { log: Log; metrics: Metrics | undefined },
): Promise<void> {
  if (interval === undefined) return;
  while (!stopSignal.aborted) {
    try {
      const report = await driver.check({ signal: stopSignal });
      metrics?.onCheck(report);
      const { status, findings } = report;
      for (const { severity, message, code, snapshot, path } of findings) {
        const level = ({ error: 'error', warning: 'warn', info: 'debug' } as const)[severity];
        log.say(level, message, { finding: code, snapshot, path });
      }
      log.say('info', 'checked', { status, findings: findings.length });
    } catch (error) {
      if (!stopSignal.aborted) log.say('error', toSnapshotError(error, 'checking the store').message);
    }
    await sleep(interval, undefined, { signal: stopSignal }).catch(() => {});
  }
}

/** Resolves when this process is asked to stop. */
function stopped(): Promise<void> {
  return new Promise((done) => {
    if (stopSignal.aborted) done();
    else stopSignal.addEventListener('abort', () => done(), { once: true });
  });
}
