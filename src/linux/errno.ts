/** The errno's name of an error from the operating system; empty if it is no such error. */
export function errnoOf(error: unknown): string {
  const code: unknown = error instanceof Error ? Reflect.get(error, 'code') : undefined;
  return typeof code === 'string' ? code : '';
}

/** Whether a file that was listed is not there any more, or something else is in its place. */
export function isGone(error: unknown): boolean {
  return ['ENOENT', 'ENOTDIR', 'ELOOP', 'ENXIO'].includes(errnoOf(error));
}

/** Whether an error is from the operating system, and not from code. */
export function isSystemError(error: unknown): boolean {
  return errnoOf(error) !== '' && typeof Reflect.get(Object(error), 'errno') === 'number';
}
