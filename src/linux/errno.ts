/** The `code` of an error, which for a system error is the name of its errno; empty if it has none. */
export function errnoOf(error: unknown): string {
  const code: unknown = error instanceof Error ? Reflect.get(error, 'code') : undefined;
  return typeof code === 'string' ? code : '';
}

/**
 * Whether an error says that a file which was listed is not there any more, or that something else is in its place. In
 * an overlay, the errno of that is `ESTALE`.
 */
export function isGone(error: unknown): boolean {
  return ['ENOENT', 'ENOTDIR', 'ELOOP', 'ENXIO', 'ESTALE'].includes(errnoOf(error));
}

/** For `catch`: ignores an error for which `isGone` holds, and throws any other. */
export function ignoreGone(error: unknown): undefined {
  if (!isGone(error)) throw error;
}

/** @returns what `read` returns, or `undefined` if the file that it reads is gone */
export function unlessGone<T>(read: () => T): T | undefined {
  try {
    return read();
  } catch (error) {
    return ignoreGone(error);
  }
}

/** For `catch`: ignores an error that says that there is no such file, and throws any other. */
export function ignoreMissing(error: unknown): undefined {
  if (errnoOf(error) !== 'ENOENT') throw error;
}

/** @returns what `read` returns, or `undefined` if there is no such file as it reads */
export function unlessMissing<T>(read: () => T): T | undefined {
  try {
    return read();
  } catch (error) {
    return ignoreMissing(error);
  }
}

/** Whether an error is from the operating system. */
export function isSystemError(error: unknown): boolean {
  return errnoOf(error) !== '' && typeof Reflect.get(Object(error), 'errno') === 'number';
}
