import { SnapshotError, toSnapshotError } from '../errors.ts';
import { errnoOf } from '../linux/errno.ts';

const HINTS: Readonly<Record<string, string>> = {
  EBUSY: 'something has it open or for its working directory; end that, or unmount lazily',
  EPERM: 'mounting needs root, or a user namespace of its own (unshare -Urm)',
  EINVAL: 'the kernel log (dmesg) may say more',
};

/** Translates the error of a mount or unmount that failed; the message keeps the words of the kernel. */
export function toMountError(error: unknown, doing: string): Error {
  if (errnoOf(error) === '' || error instanceof SnapshotError) return toSnapshotError(error, doing);
  const { code, message } = toSnapshotError(error, doing) as SnapshotError;
  const hint = HINTS[errnoOf(error)];
  const refused = ['EINVAL', 'ESTALE', 'ENOTEMPTY'].includes(errnoOf(error));
  return new SnapshotError(refused ? 'FAILED_PRECONDITION' : code, message, {
    cause: error,
    ...(hint !== undefined && { hint }),
  });
}
