import { SnapshotError } from '../errors.ts';
import { errnoOf } from '../linux/errno.ts';
import { quote } from '../quote.ts';

/**
 * Loads what only some users need and others need not install.
 *
 * @throws {SnapshotError} FAILED_PRECONDITION if it is not installed
 */
export async function loadOptional<T>(packages: readonly string[], load: () => Promise<T>): Promise<T> {
  try {
    return await load();
  } catch (error) {
    if (!['ERR_MODULE_NOT_FOUND', 'MODULE_NOT_FOUND'].includes(errnoOf(error))) throw error;
    const message = error instanceof Error ? error.message : '';
    const missing = packages.find((name) => message.includes(`'${name}'`));
    // Something else is missing, which installing would not bring.
    if (missing === undefined) throw error;
    throw new SnapshotError('FAILED_PRECONDITION', `the package ${quote(missing)} is not installed`, {
      hint: `install it beside overlite: npm install ${packages.join(' ')}`,
      cause: error,
    });
  }
}
