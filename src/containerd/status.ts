import { status } from '@grpc/grpc-js';
import { SnapshotError, toSnapshotError } from '../errors.ts';

/** How long a message may be: it is sent in a header. */
const MAX_DETAILS = 2000;

/** How a call ended, in gRPC's words. */
export interface CallStatus {
  readonly code: status;
  readonly details: string;
}

/** An error as the wire has it: its code, and its message followed by the hint. */
export function toStatus(error: unknown, doing: string): CallStatus {
  const known = toSnapshotError(error, doing);
  if (!(known instanceof SnapshotError)) {
    const code =
      Reflect.get(known, 'code') === 'INVALID_ARGUMENT' ? status.INVALID_ARGUMENT : status.INTERNAL;
    return { code, details: toDetails(known.message) };
  }
  const { code, message, hint } = known;
  return {
    code: status[code],
    details: toDetails(hint === undefined ? message : `${message} (${hint})`),
  };
}

function toDetails(text: string): string {
  return (text.length > MAX_DETAILS ? `${text.slice(0, MAX_DETAILS)}...` : text).toWellFormed();
}
