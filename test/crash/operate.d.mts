import type { OverlayDriver } from '../../src/index.ts';

/** See operate.mjs. */
export function fixture(driver: OverlayDriver): Promise<void>;
export function fixtureToCleanUp(driver: OverlayDriver): Promise<void>;
export const operations: Record<string, (driver: OverlayDriver) => Promise<unknown>>;
