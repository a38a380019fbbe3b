/** An id or mark that was read from a damaged page, which can hold anything: 0 if no store can have assigned it. */
export function plausibleId(value: unknown): number {
  return typeof value === 'number' && Number.isInteger(value) && value > 0 && value < 2 ** 48 ? value : 0;
}
