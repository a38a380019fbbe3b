import { status } from '@grpc/grpc-js';
import { SnapshotError, toSnapshotError } from '../errors.ts';

/** How long a message may be: it travels in a header. */
const MAX_DETAILS = 2000;

/** What a call ended with, if not well, in gRPC's words. */
export interface CallStatus {
  readonly code: status;
  readonly details: string;
}

/** An error as it crosses the wire: its own code, and the message with the hint behind it. */
export function toStatus(error: unknown, doing: string): CallStatus {
  const known = toSnapshotError(error, doing);
  if (!(known instanceof SnapshotError)) return { code: status.INTERNAL, details: toDetails(known.message) };
  const { code, message, hint } = known;
  return {
    code: status[code],
    details: toDetails(hint === undefined ? message : `${message} (${hint})`),
  };
}

function toDetails(text: string): string {
  return (text.length > MAX_DETAILS ? `${text.slice(0, MAX_DETAILS)}...` : text).toWellFormed();
}
