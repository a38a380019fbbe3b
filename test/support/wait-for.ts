import { setTimeout as sleep } from 'node:timers/promises';

/** How long something is waited for that never comes, in milliseconds: only a test that fails takes as long. */
const LIMIT_MS = 120_000;

/**
 * Waits until a condition holds, and resolves to what it gave. On a busy machine that may take long.
 *
 * @param what what is waited for, to be read behind "waited in vain for"
 * @param condition gives something true once it is there; what it throws ends the wait
 * @throws {Error} if the condition never holds
 */
export async function waitFor<T>(
  what: string,
  condition: () => T | Promise<T>,
): Promise<Exclude<T, undefined | null | false | ''>> {
  const end = performance.now() + LIMIT_MS;
  for (;;) {
    const value = await condition();
    if (value !== undefined && value !== null && value !== false && value !== '' && value !== 0) {
      return value as Exclude<T, undefined | null | false | ''>;
    }
    if (performance.now() > end) throw new Error(`waited in vain for ${what}`);
    await sleep(10);
  }
}
