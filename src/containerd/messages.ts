import type { Info, Kind, Labels, Mount, Usage } from '../snapshot.ts';

/** `google.protobuf.Timestamp` */
export interface WireTimestamp {
  readonly seconds: number;
  readonly nanos: number;
}

/** A kind, as the wire has it. */
type WireKind = 'UNKNOWN' | 'VIEW' | 'ACTIVE' | 'COMMITTED';

/** `containerd.types.Mount` */
export interface WireMount {
  readonly type: string;
  readonly source: string;
  readonly target?: string;
  readonly options: readonly string[];
}

/** `containerd.services.snapshots.v1.Info` */
export interface WireInfo {
  readonly name: string;
  /** Empty for a base. */
  readonly parent: string;
  readonly kind: WireKind;
  readonly createdAt: WireTimestamp | null;
  readonly updatedAt: WireTimestamp | null;
  readonly labels: Labels;
}

/** The first field of every request: the client's name for the snapshotter. */
export interface WireRequest {
  readonly snapshotter: string;
}

/** The request of `Mounts`, `Remove`, `Stat` and `Usage`. */
export interface KeyRequest extends WireRequest {
  readonly key: string;
}

/** The request of `Prepare` and `View`. */
export interface MakeRequest extends KeyRequest {
  readonly parent: string;
  readonly labels: Labels;
}

/** The request of `Commit`. */
export interface CommitRequest extends MakeRequest {
  readonly name: string;
}

/** The request of `Update`. */
export interface UpdateRequest extends WireRequest {
  readonly info: WireInfo | null;
  readonly updateMask: { readonly paths: readonly string[] } | null;
}

/** The request of `List`. */
export interface ListRequest extends WireRequest {
  readonly filters: readonly string[];
}

const kinds: Readonly<Record<Kind, WireKind>> = { view: 'VIEW', active: 'ACTIVE', committed: 'COMMITTED' };

/** A time as the wire has it, to the microsecond. */
function toTimestamp(us: number): WireTimestamp {
  const seconds = Math.floor(us / 1e6);
  return { seconds, nanos: (us - seconds * 1e6) * 1000 };
}

/** A snapshot, as the wire has it. */
export function toWireInfo({ name, parent, kind, createdUs, updatedUs, labels }: Info): WireInfo {
  return {
    name,
    parent: parent ?? '',
    kind: kinds[kind],
    createdAt: toTimestamp(createdUs),
    updatedAt: toTimestamp(updatedUs),
    labels,
  };
}

/** Mounts, as the wire has them. */
export function toWireMounts(mounts: readonly Mount[]): { mounts: readonly WireMount[] } {
  return { mounts };
}

/** Usage, as the wire has it. */
export function toWireUsage({ size, inodes }: Usage): Usage {
  return { size, inodes };
}
