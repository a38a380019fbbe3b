export { mount, openMount, unmount, withMount } from './mount.ts';
export type { DetachedMount, MountCallOptions, MountMethod } from '../snapshot.ts';
