export { checkStore } from './check/check.ts';
export { FINDINGS } from './check/findings.ts';
export { restoreStore, type RestoreOptions, type RestoreReport } from './check/restore.ts';
export { OverlayDriver } from './driver/driver.ts';
export type { DriverOptions } from './driver/options.ts';
export { SnapshotError, type ErrorCode } from './errors.ts';
export { MetadataReader, type MetadataOptions } from './metadata/reader.ts';
export type { LeftRemoval, LostRow } from './metadata/repair/rebuilt.ts';
export type { Removal } from './metadata/rows.ts';
export { MetadataStore, type CommitRecord, type PrepareRecord } from './metadata/store.ts';
export type {
  CheckOptions,
  CheckProgress,
  Finding,
  FindingCode,
  Rebuild,
  Repair,
  Report,
  Severity,
  Step,
  StepResult,
} from './report.ts';
export type {
  BackupOptions,
  Change,
  CheckpointOptions,
  CleanupOptions,
  CleanupResult,
  CommitOptions,
  DiffOptions,
  Difference,
  Info,
  Kind,
  Labels,
  Mount,
  OverlaySnapshotter,
  Owner,
  PrepareOptions,
  Progress,
  RemoveResult,
  Seal,
  SealedCommitOptions,
  SnapshotRecord,
  Snapshotter,
  Tally,
  Transaction,
  UpdateOptions,
  Usage,
  ViewOptions,
  Waiting,
  Watched,
} from './snapshot.ts';
