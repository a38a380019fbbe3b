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

/** How messages look in JavaScript: numbers for int64, strings for enums, and no field left out. */
const options = {
  includeDirs: [fileURLToPath(new URL('../../protos', import.meta.url))],
  longs: Number,
  enums: String,
  defaults: true,
};

/** The messages and services of this package's `.proto` files, as `@grpc/proto-loader` returns them. */
export const packageDefinition: PackageDefinition = loadSync(
  'containerd/services/snapshots/v1/snapshots.proto',
  options,
);

/** A request that could not be read. It reaches the service, which answers and logs what is wrong with it. */
export class Malformed {
  readonly reason: string;

  constructor(reason: string) {
    this.reason = reason;
  }
}

const definition = packageDefinition[SNAPSHOTS] as ServiceDefinition;

/** The service, for a server. A request that cannot be read is answered by the service, not by the library. */
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
