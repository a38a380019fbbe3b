export { checkStore } from './check/check.ts';
export {
  FINDINGS,
  type CheckOptions,
  type CheckProgress,
  type Finding,
  type FindingCode,
  type Rebuild,
  type Repair,
  type Report,
  type Severity,
  type Step,
  type StepResult,
} from './check/findings.ts';
export { restoreStore, type RestoreOptions, type RestoreReport } from './check/restore.ts';
export type { Change, Difference, DiffOptions } from './layers/change.ts';
export { OverlayDriver } from './driver/driver.ts';
export type { DriverOptions } from './driver/options.ts';
export type { Seal, SealedCommitOptions } from './driver/operations.ts';
export type { Transaction } from './driver/transaction.ts';
export { SnapshotError, type ErrorCode } from './errors.ts';
export { MetadataReader, type MetadataOptions, type Removal } from './metadata/reader.ts';
export type { LeftRemoval, LostRow } from './metadata/repair/salvage.ts';
export { MetadataStore, type CommitRecord, type PrepareRecord } from './metadata/store.ts';
export type {
  BackupOptions,
  CheckpointOptions,
  CleanupOptions,
  CleanupResult,
  CommitOptions,
  Info,
  Kind,
  Labels,
  Mount,
  Owner,
  PrepareOptions,
  Progress,
  RemoveResult,
  SnapshotRecord,
  Snapshotter,
  Tally,
  UpdateOptions,
  Usage,
  ViewOptions,
  Waiting,
  Watched,
} from './snapshot.ts';
