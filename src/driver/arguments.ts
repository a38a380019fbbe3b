import { wrongType } from '../errors.ts';
import {
  type Checked,
  abortSignal,
  boolean,
  checkLabels,
  checkName,
  checkOptions,
  checkParent,
  kindOf,
  oneOf,
  optional,
  toLabelKeys,
  waitingOptions,
  watchedOptions,
  withDefault,
} from '../arguments.ts';
import { checkIdMappings } from '../layers/id-mapping.ts';
import type { DiffOptions, Labels, Progress, Waiting, Watched } from '../snapshot.ts';

/** The arguments of `prepare` and `view`, checked. */
export interface PrepareRequest {
  readonly kind: 'active' | 'view';
  readonly key: string;
  /** `null` for a base. */
  readonly parent: string | null;
  readonly labels: Labels;
  readonly volatile: boolean;
}

/** The arguments of a commit, checked, but for those of the caller alone. */
export interface CommitRequest {
  readonly name: string;
  readonly key: string;
  readonly labels: Labels;
  /** The parent to give to a snapshot without one; `null` to keep the parent that it has. */
  readonly parent: string | null;
}

/** What to do when the layer to commit is in use. */
export type InUsePolicy = 'allow' | 'refuse' | 'copy';

/** The arguments of `update`, checked. */
export interface UpdateRequest {
  readonly keyOrName: string;
  readonly labels: Labels;
  readonly keys: 'all' | readonly string[];
}

function labels(value: unknown): Labels {
  const checked = checkLabels(value);
  checkIdMappings(checked);
  return checked;
}

const prepareOptions = { labels, volatile: withDefault(boolean, false) };
const viewOptions = { labels };
const commitOptions = { labels, parent: checkParent };

function toPlace(key: unknown, parent: unknown): Pick<PrepareRequest, 'key' | 'parent'> {
  return { key: checkName(key, 'key'), parent: checkParent(parent) };
}

/** Checks the arguments of `prepare` within a transaction. */
export function toPrepareRequest(key: unknown, parent: unknown, options: unknown): PrepareRequest {
  return { kind: 'active', ...checkOptions(options, prepareOptions), ...toPlace(key, parent) };
}

/** Checks the arguments of `view` within a transaction. */
export function toViewRequest(key: unknown, parent: unknown, options: unknown): PrepareRequest {
  return { kind: 'view', volatile: false, ...checkOptions(options, viewOptions), ...toPlace(key, parent) };
}

/** Checks the arguments of `prepare`. */
export function toQueuedPrepare(
  key: unknown,
  parent: unknown,
  options: unknown,
): PrepareRequest & Checked<Waiting> {
  const checked = checkOptions(options, { ...prepareOptions, ...waitingOptions });
  return { kind: 'active', ...checked, ...toPlace(key, parent) };
}

/** Checks the arguments of `view`. */
export function toQueuedView(
  key: unknown,
  parent: unknown,
  options: unknown,
): PrepareRequest & Checked<Waiting> {
  const checked = checkOptions(options, { ...viewOptions, ...waitingOptions });
  return { kind: 'view', volatile: false, ...checked, ...toPlace(key, parent) };
}

function toNames(name: unknown, key: unknown): Pick<CommitRequest, 'name' | 'key'> {
  return { name: checkName(name, 'name'), key: checkName(key, 'key') };
}

/** Checks the arguments of `commit`. */
export function toCommitRequest(
  name: unknown,
  key: unknown,
  options: unknown,
): CommitRequest & { readonly inUse: InUsePolicy } & Checked<Watched> {
  const checked = checkOptions(options, {
    ...commitOptions,
    inUse: withDefault(oneOf<InUsePolicy>('allow', 'refuse', 'copy'), 'allow'),
    ...watchedOptions<Progress>(),
  });
  return { ...checked, ...toNames(name, key) };
}

/** Checks the arguments of `commit` within a transaction, but for the seal, which is only passed on. */
export function toSealedCommitRequest(
  name: unknown,
  key: unknown,
  options: unknown,
): CommitRequest & { readonly inUse: InUsePolicy; readonly seal: unknown } {
  const checked = checkOptions(options, {
    ...commitOptions,
    inUse: withDefault(oneOf<InUsePolicy>('allow', 'refuse'), 'allow'),
    seal: (seal) => seal,
  });
  return { ...checked, ...toNames(name, key) };
}

/** Checks the arguments of `checkpoint`. */
export function toCheckpointRequest(
  name: unknown,
  key: unknown,
  options: unknown,
): CommitRequest & Checked<Watched> {
  const checked = checkOptions(options, { labels, ...watchedOptions<Progress>() });
  return { parent: null, ...checked, ...toNames(name, key) };
}

/** Checks the arguments of `update`. */
export function toUpdateRequest(
  keyOrName: unknown,
  options: unknown,
  fieldpaths: unknown = [],
): UpdateRequest & Checked<Waiting> {
  checkName(keyOrName, 'key or name');
  if (typeof options !== 'object' || options === null) {
    throw wrongType(`options must be an object, not ${kindOf(options)}`);
  }
  const given: { readonly labels?: unknown; readonly signal?: unknown } = options;
  if (given.labels === undefined) throw wrongType('labels must be given');
  return {
    keyOrName: checkName(keyOrName, 'key or name'),
    labels: labels(given.labels),
    keys: toLabelKeys(fieldpaths),
    signal: optional(abortSignal)(given.signal, 'signal'),
  };
}

/** Checks the options of `diff`. */
export function toDiffOptions(options: unknown): Checked<DiffOptions> {
  return checkOptions(options, {
    against: (against) =>
      against === undefined || against === null ? against : checkName(against, 'key or name'),
    contents: optional(boolean),
    ...waitingOptions,
  });
}
