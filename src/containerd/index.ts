export type { CallRecord } from './calls.ts';
export { packageDefinition, snapshotsDefinition } from './protocol.ts';
export { serve, type RunningServer, type ServeOptions } from './server.ts';
export { snapshotsService, type SnapshotsServiceOptions } from './service.ts';
