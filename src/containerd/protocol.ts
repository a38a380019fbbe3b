import { fileURLToPath } from 'node:url';
import {
  type MethodDefinition,
  type PackageDefinition,
  type ServiceDefinition,
  loadSync,
} from '@grpc/proto-loader';
import { checkMessage, shapeOf } from './wire.ts';

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
  const { name } = method.requestType.type as { name: string };
  const shape = shapeOf(packageDefinition, `${SNAPSHOTS.slice(0, SNAPSHOTS.lastIndexOf('.'))}.${name}`);
  return {
    ...method,
    requestDeserialize(bytes) {
      try {
        checkMessage(bytes, shape);
        return method.requestDeserialize(bytes);
      } catch (error) {
        return new Malformed(error instanceof Error ? error.message : String(error));
      }
    },
  };
}
