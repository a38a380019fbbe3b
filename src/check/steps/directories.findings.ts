import { quoteWhole } from '../../quote.ts';
import type { FindingCode, Severity } from '../../report.ts';
import type { Description, RepairDescription } from '../description.ts';

const SET_ASIDE = { sentence: 'move it to lost+found', phase: 'move' } as const satisfies RepairDescription;

/** The directories of an open snapshot are created again; nobody knows what those of a committed one held. */
const CREATE_IF_OPEN = {
  sentence: 'make it anew, empty',
  phase: 'create',
  when: ({ kind }: { kind: string }) => kind !== 'committed',
} as const satisfies RepairDescription;

/**
 * Where a mount is that hides a part of the store: over all of `snapshots/`, over a directory there, or in a layer.
 */
type Hidden = 'all directories' | 'a directory' | 'a part of a layer';

const HIDING: Readonly<Record<Hidden, Severity>> = {
  'all directories': 'warning',
  'a directory': 'error',
  'a part of a layer': 'info',
};

/** What the step `directories` can find. */
export const DIRECTORY_FINDINGS = {
  'root-owner': {
    severity: 'error',
    message: ({ uid, me }: { uid: number; me: number }) => `the root belongs to user ${uid}, not ${me}`,
  },
  'root-mode': {
    severity: 'warning',
    severityOf: ({ mode }: { mode: number }) => (isWritableToOthers(mode) ? 'error' : 'warning'),
    message: ({ mode }: { mode: number }) =>
      `others may ${isWritableToOthers(mode) ? 'write to' : 'look into'} the root: its mode is ${octal(mode)}`,
    repair: { sentence: 'make it 0700', phase: 'files' },
  },
  'database-mode': {
    severity: 'warning',
    message: ({ mode }: { mode: number }) => `others may read the database: its mode is ${octal(mode)}`,
    repair: { sentence: 'make it 0600', phase: 'files' },
  },
  'snapshots-missing': {
    severity: 'error',
    message: ({ path }: { path: string }) => `${path} is missing`,
    repair: { sentence: 'make the directory anew, empty', phase: 'snapshots directory' },
  },
  'snapshots-link': {
    severity: 'error',
    message: ({ path, target }: { path: string; target: string }) =>
      `${path} is a symbolic link to ${quoteWhole(target)}, and links in a store are not followed: let the whole root be on one filesystem, moved to the larger one, and give its new path or mount it at the old one with mount --bind`,
  },
  'snapshots-filesystem': {
    severity: 'error',
    message: ({ path }: { path: string }) => `${path} is on another filesystem than the database`,
  },
  'directory-missing': {
    severity: 'error',
    message: ({ snapshot }: { snapshot: string }) => `the directory of ${snapshot} is missing`,
    damagesLayer: true,
    repair: CREATE_IF_OPEN,
  },
  'layer-missing': {
    severity: 'error',
    message: ({ snapshot }: { snapshot: string }) => `the layer of ${snapshot} is missing`,
    damagesLayer: true,
    repair: CREATE_IF_OPEN,
  },
  'work-missing': {
    severity: 'error',
    message: ({ snapshot }: { snapshot: string }) => `the work directory of ${snapshot} is missing`,
    repair: { sentence: 'make it anew', phase: 'create' },
  },
  'not-a-directory': {
    severity: 'error',
    message: ({ what, type }: { what: string; type: string }) => `${what} is ${type}`,
    damagesLayer: true,
    repair: SET_ASIDE,
  },
  'directory-unknown': {
    severity: 'warning',
    message: ({ id, name }: { id?: number; name: string }) =>
      id === undefined
        ? `${quoteWhole(name)} is not named like the directory of a snapshot`
        : `the directory ${id} belongs to no snapshot`,
    repair: SET_ASIDE,
  },
  'entry-extra': {
    severity: 'warning',
    message: ({ snapshot, name }: { snapshot: string; name: string | undefined }) =>
      name === undefined
        ? `${snapshot} is a view with a parent and needs no directory`
        : `the directory of ${snapshot} also holds ${quoteWhole(name)}`,
    repair: SET_ASIDE,
  },
  skeleton: {
    severity: 'info',
    message: ({ id }: { id: number }) => `the empty directory ${id} belongs to no snapshot`,
    repair: { sentence: 'remove the empty directory', phase: 'move' },
  },
  'mounted-over': {
    severity: 'error',
    severityOf: ({ hidden }: { hidden: Hidden }) => HIDING[hidden],
    message: ({ path, hidden }: { path: string; hidden: Hidden }) =>
      hidden === 'a part of a layer'
        ? `something is mounted at ${path}, inside a committed layer: overlays do not show it`
        : `something is mounted over ${path}`,
  },
} as const satisfies Partial<Record<FindingCode, Description>>;

function isWritableToOthers(mode: number): boolean {
  return (mode & 0o022) !== 0;
}

function octal(mode: number): string {
  return (mode & 0o7777).toString(8).padStart(4, '0');
}
