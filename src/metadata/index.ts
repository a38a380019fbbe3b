export { SnapshotError, type ErrorCode } from '../errors.ts';
export type { Kind, Labels, SnapshotRecord, UpdateOptions, Usage } from '../snapshot.ts';
export { MetadataReader, type Found, type MetadataOptions, type Removal } from './reader.ts';
export { MetadataStore, type CommitRecord, type PrepareRecord } from './store.ts';
