/** An id or mark beyond this is not one that a store has assigned: at a million a second it would take nine years. */
const HIGHEST_ID = 2 ** 48;

/** An id or mark that was read from a database or from a name, which can hold anything: 0 if no store can have assigned it. */
export function plausibleId(value: unknown): number {
  return typeof value === 'number' && Number.isInteger(value) && value > 0 && value < HIGHEST_ID ? value : 0;
}
