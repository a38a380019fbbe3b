/**
 * What takes too long to be run in full each time is sampled, by a seed that is printed and changes from run to run.
 * `TEST_SEED=n` repeats a sample. `TEST_SAMPLE=others` runs some more of what the same seed leaves out, and
 * `TEST_SAMPLE=all` everything; `npm run test:all` sets that.
 */
const seed = Number(process.env['TEST_SEED']);
if (!Number.isSafeInteger(seed)) throw new Error(`TEST_SEED is no number: ${process.env['TEST_SEED']}`);

const which = process.env['TEST_SAMPLE'] ?? 'some';
if (!['some', 'others', 'all'].includes(which))
  throw new Error(`TEST_SAMPLE is some, others or all: ${which}`);

/** How much of something is run: by default, beyond that, and in all. */
interface Amounts {
  readonly some: number;
  readonly others: number;
  readonly all: number;
}

/** How often something is done that is different each time. `TEST_AMOUNT=n` sets it. */
export function amount(amounts: Amounts): number {
  return Number(process.env['TEST_AMOUNT'] ?? amounts[which as keyof Amounts]);
}

/** When a test that does something so often is taken to hang, in milliseconds. */
export function limitFor(times: number): number {
  return 600_000 + times * 60_000;
}

/**
 * The seed of the first time, from which those of the others count on. A failure names the seed of the time that failed:
 * with that as `TEST_SEED` and with `TEST_AMOUNT=1`, it is done once more.
 */
export const firstSeed = which === 'others' ? seed + 1_000_000 : seed;

/** Chooses from a list: some, or others of which there are so many, or all. What is chosen stays in its order. */
export function sample<T>(items: readonly T[], { some, others }: Omit<Amounts, 'all'>): T[] {
  if (which === 'all') return [...items];
  const random = randomFrom(seed);
  const order = items.map((_, index) => ({ index, at: random(2 ** 32) })).toSorted((a, b) => a.at - b.at);
  const chosen = which === 'some' ? order.slice(0, some) : order.slice(some, some + others);
  return items.filter((_, item) => chosen.some(({ index }) => index === item));
}

/** A function that gives numbers below another which the seed decides, by the generator known as mulberry32. */
export function randomFrom(start: number): (below: number) => number {
  let state = start >>> 0;
  return (below) => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) % below;
  };
}

/** Runs the body of a sampled test. What it throws says how to run the same sample again. */
export async function sampled(body: () => Promise<void>): Promise<void> {
  try {
    await body();
  } catch (error) {
    const again = `TEST_SEED=${seed}${which === 'some' ? '' : ` TEST_SAMPLE=${which}`}`;
    if (error instanceof Error) error.message = `${again} shows this again: ${error.message}`;
    throw error;
  }
}
