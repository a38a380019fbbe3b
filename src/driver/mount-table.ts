import { overlayKnowsIndex } from '../linux/filesystem.ts';
import { SnapshotError } from '../errors.ts';
import { MAX_LOWERS } from '../mount/options.ts';
import { quote } from '../quote.ts';
import type { Kind, Labels, Mount } from '../snapshot.ts';
import type { OwnAttributes } from '../layers/directories.ts';
import { idMapOptions } from '../layers/id-mapping.ts';
import type { Layout } from '../layers/layout.ts';
import type { Settings } from './options.ts';

/** An open snapshot and its ancestors. */
export interface Stack {
  readonly id: number;
  readonly kind: Kind;
  readonly labels: Labels;
  /** The ids of its ancestors, nearest first, joined by the table's `separator`; empty if it has none. */
  readonly lowers: string;
  /** Whether overlayfs does not sync what is written to it. */
  readonly volatile: boolean;
}

/** The mounts and layers by which the contents of a snapshot of any kind can be read. */
export interface ReadView {
  readonly mounts: readonly Mount[];
  /** The ids of its layers, nearest first. */
  readonly layers: readonly number[];
}

/** @throws {SnapshotError} FAILED_PRECONDITION if overlayfs could not stack a snapshot on so many layers */
export function checkDepth(name: string, lowers: number): void {
  if (lowers <= MAX_LOWERS) return;
  throw new SnapshotError(
    'FAILED_PRECONDITION',
    `${quote(name)} would stand on ${lowers} layers, overlayfs stacks no more than ${MAX_LOWERS}`,
    { hint: 'build on a snapshot with fewer ancestors' },
  );
}

/** Gives the mounts of snapshots. */
export class MountTable {
  readonly #layout: Layout;
  /** Whether the mounts of a snapshot depend on its labels. */
  readonly usesLabels: boolean;
  readonly #overlayOptions: readonly string[];
  /** The directory of the snapshots as overlayfs's options take it: nothing else in a path needs escaping. */
  readonly #lower: string;
  readonly #upper: string;
  /** How the names of overlayfs's own attributes begin. Any others are the user's. */
  readonly ownAttributes: OwnAttributes;
  /** The text between the ids of two layers in the option `lowerdir`. */
  readonly separator: string;

  constructor(
    layout: Layout,
    { mountOptions, remapIds }: Pick<Settings, 'mountOptions' | 'remapIds'>,
    userxattr: boolean,
  ) {
    this.#layout = layout;
    this.usesLabels = remapIds;
    this.#lower = layout.snapshots.replace(/[\\:,]/g, '\\$&');
    this.separator = `/fs:${this.#lower}/`;
    this.#upper = layout.snapshots.replace(/[\\,]/g, '\\$&');
    const isSet = (name: string): boolean =>
      mountOptions.some((option) =>
        option.split(',').some((part) => part === name || part.startsWith(`${name}=`)),
      );
    this.ownAttributes = userxattr || isSet('userxattr') ? 'user.overlay.' : 'trusted.overlay.';
    this.#overlayOptions = [
      ...mountOptions,
      ...(userxattr && !isSet('userxattr') ? ['userxattr'] : []),
      ...(overlayKnowsIndex() && !isSet('index') ? ['index=off'] : []),
    ];
  }

  /**
   * | snapshot | mount |
   * |---|---|
   * | active, no parent | `bind` of its own `fs`, `rw` |
   * | view, no parent | `bind` of its own `fs`, `ro` |
   * | view, one ancestor | `bind` of the parent's `fs`, `ro` |
   * | view, more | `overlay` of the ancestors |
   * | active with ancestors | `overlay` of its own `fs` over the ancestors |
   */
  mounts({ id, kind, labels, lowers, volatile }: Stack): Mount[] {
    const mapped = this.usesLabels ? idMapOptions(labels) : [];
    if (lowers === '' || (kind === 'view' && !lowers.includes(this.separator))) {
      const mode = kind === 'active' ? 'rw' : 'ro';
      const source = this.#layout.fs(lowers === '' ? id : Number(lowers));
      return [{ type: 'bind', source, options: [...mapped, mode, 'rbind'] }];
    }
    const upper = [`workdir=${this.#upper}/${id}/work`, `upperdir=${this.#upper}/${id}/fs`];
    const lower = `lowerdir=${this.#lower}/${lowers}/fs`;
    const options = [
      ...mapped,
      ...(kind === 'active' ? upper : []),
      lower,
      ...this.#overlayOptions,
      ...(volatile ? ['volatile'] : []),
    ];
    return [{ type: 'overlay', source: 'overlay', options }];
  }
}
