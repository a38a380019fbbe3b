const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];

/** A number of bytes for people: `4.0 KiB`. */
export function bytes(size: number): string {
  const power = size < 1 ? 0 : Math.min(Math.floor(Math.log2(size) / 10), units.length - 1);
  return `${(size / 1024 ** power).toFixed(power === 0 ? 0 : 1)} ${units[power]}`;
}

/** A number of milliseconds for people: `1.2 ms`. */
export function duration(ms: number): string {
  return ms < 1000 ? `${ms.toFixed(1)} ms` : `${(ms / 1000).toFixed(2)} s`;
}

const spans: readonly (readonly [string, number])[] = [
  ['y', 365 * 86_400],
  ['d', 86_400],
  ['h', 3600],
  ['m', 60],
];

/** How long ago something was, for people: `3d`. */
export function age(then: Date, now = Date.now()): string {
  const seconds = Math.max(0, Math.floor((now - then.getTime()) / 1000));
  const span = spans.find(([, length]) => seconds >= length);
  return span === undefined ? `${seconds}s` : `${Math.floor(seconds / span[1])}${span[0]}`;
}
