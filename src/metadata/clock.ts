let anchorMs = Date.now() - performance.now();
let lastUs = 0;

/**
 * The time in whole microseconds since the epoch, later at each call in this process: Date.now()
 * alone is too coarse to order what happens within a millisecond. It follows the wall clock when
 * that is set.
 */
export function nowUs(): number {
  const wallMs = Date.now();
  const fineMs = anchorMs + performance.now();
  if (Math.abs(fineMs - wallMs) > 2) anchorMs += wallMs - fineMs;
  const us = Math.floor((anchorMs + performance.now()) * 1000);
  lastUs = Math.abs(us - lastUs) < 1000 && us <= lastUs ? lastUs + 1 : us;
  return lastUs;
}
