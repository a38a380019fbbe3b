import { SnapshotError } from '../errors.ts';
import { errnoOf } from '../linux/errno.ts';
import { quote } from '../quote.ts';

/**
 * Loads a module that needs optional packages.
 *
 * @throws {SnapshotError} FAILED_PRECONDITION if one of them is not installed
 */
export async function loadOptional<T>(packages: readonly string[], load: () => Promise<T>): Promise<T> {
  try {
    return await load();
  } catch (error) {
    if (!['ERR_MODULE_NOT_FOUND', 'MODULE_NOT_FOUND'].includes(errnoOf(error))) throw error;
    const message = error instanceof Error ? error.message : '';
    const missing = packages.find((name) => message.includes(`'${name}'`));
    // Something else is missing, and installing them would not help.
    if (missing === undefined) throw error;
    throw new SnapshotError('FAILED_PRECONDITION', `the package ${quote(missing)} is not installed`, {
      hint: `install it beside overlite: npm install ${packages.join(' ')}`,
      cause: error,
    });
  }
}
