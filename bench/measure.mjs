import { execFileSync } from 'node:child_process';
import { Bench } from 'tinybench';

/** How long each figure is measured, in milliseconds, and at least how often. */
const budgets = { full: { time: 400, warmupTime: 100 }, quick: { time: 200, warmupTime: 50 } };

/**
 * Measures one operation of one side. What `before` and `after` do around each call is not timed; of a call that does
 * the work of several, `per` says of how many. `least` is how many calls there are at the least.
 *
 * @returns its median and 99th percentile in microseconds
 */
export async function measure(name, operation, { quick, before, after, least = 30, per = 1 } = {}) {
  const { time, warmupTime } = budgets[quick ? 'quick' : 'full'];
  const warmupIterations = Math.min(least, 16);
  const bench = new Bench({ time, iterations: least, warmupTime, warmupIterations, throws: true });
  bench.add(name, operation, { async: true, beforeEach: before, afterEach: after });
  const [task] = await bench.run();
  const { p50, p99, min, samplesCount } = task.result.latency;
  const microseconds = (milliseconds) => (milliseconds * 1000) / per;
  return {
    name,
    median: microseconds(p50),
    p99: microseconds(p99),
    min: microseconds(min),
    samples: samplesCount,
  };
}

/** Has what others wrote out of the way, so that nobody's sync waits for it. */
export function settleDisk() {
  execFileSync('sync');
}

/** One figure of several turns: the median of each of its numbers. */
export function combine(figures) {
  const middle = (field) => {
    const values = figures.map((figure) => figure[field]).toSorted((a, b) => a - b);
    return (values[(values.length - 1) >> 1] + values[values.length >> 1]) / 2;
  };
  return {
    ...figures[0],
    median: middle('median'),
    p99: middle('p99'),
    min: middle('min'),
    samples: figures.reduce((sum, { samples }) => sum + samples, 0),
  };
}
