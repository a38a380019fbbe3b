export type { MountMethod } from './method.ts';
export { mount, openMount, unmount, withMount, type DetachedMount, type MountCallOptions } from './mount.ts';
