export { SnapshotError, type ErrorCode } from '../errors.ts';
export type { Kind, Labels, SnapshotRecord, UpdateOptions, Usage } from '../snapshot.ts';
export { MetadataReader, type MetadataOptions } from './reader.ts';
export type { Found, Removal } from './rows.ts';
export { MetadataStore, type CommitRecord, type PrepareRecord } from './store.ts';
