import { fileURLToPath } from 'node:url';
import type { MethodDefinition, ServiceDefinition } from '@grpc/grpc-js';
import { type PackageDefinition, loadSync } from '@grpc/proto-loader';
import { kindOf } from '../names.ts';

/** The full name of the service. */
export const SNAPSHOTS = 'containerd.services.snapshots.v1.Snapshots';

/** How messages look in JavaScript: numbers for int64, words for enums, and nothing left out. */
const options = {
  includeDirs: [fileURLToPath(new URL('../../protos', import.meta.url))],
  longs: Number,
  enums: String,
  defaults: true,
};

/** The messages and services of the `.proto` files of this package, as `@grpc/proto-loader` gives them. */
export const packageDefinition: PackageDefinition = loadSync(
  'containerd/services/snapshots/v1/snapshots.proto',
  options,
);

/** A request that could not be read. It reaches the service, which can say what is wrong, and to whom it was said. */
export class Malformed {
  readonly reason: string;

  constructor(reason: string) {
    this.reason = reason;
  }
}

const definition = packageDefinition[SNAPSHOTS] as ServiceDefinition;

/** The service, for a server: what cannot be read of a request is told by the service instead of the library. */
export const snapshotsDefinition: ServiceDefinition = Object.fromEntries(
  Object.entries(definition).map(([name, method]) => [name, withTolerance(method)]),
);

function withTolerance(method: MethodDefinition<object, object>): MethodDefinition<object, object> {
  return { ...method, requestDeserialize: (bytes) => read(bytes, method.requestDeserialize) };
}

function read(bytes: Buffer, deserialize: (bytes: Buffer) => object): object {
  try {
    const message = deserialize(bytes);
    // The library reads what is not UTF-8 as replacement characters, so that two keys could become the same one.
    return countReplaced(message) === countMeant(bytes) ? message : new Malformed('its text is not UTF-8');
  } catch (error) {
    return new Malformed(error instanceof Error ? error.message : kindOf(error));
  }
}

const REPLACEMENT = '\uFFFD';
const replacementBytes = Buffer.from(REPLACEMENT);

/** How many replacement characters there are in the texts of a message. */
function countReplaced(value: unknown): number {
  if (typeof value === 'string') return value.includes(REPLACEMENT) ? value.split(REPLACEMENT).length - 1 : 0;
  if (typeof value !== 'object' || value === null) return 0;
  let count = 0;
  for (const [key, part] of Object.entries(value)) count += countReplaced(key) + countReplaced(part);
  return count;
}

/** How many of them the client has sent. */
function countMeant(bytes: Buffer): number {
  let count = 0;
  for (
    let at = bytes.indexOf(replacementBytes);
    at >= 0;
    at = bytes.indexOf(replacementBytes, at + replacementBytes.length)
  ) {
    count += 1;
  }
  return count;
}
