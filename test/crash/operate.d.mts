import type { OverlayDriver } from '../../src/index.ts';

/** See operate.mjs. */
export function fixture(driver: OverlayDriver, operation: string): Promise<void>;
export const operations: Record<string, (driver: OverlayDriver) => Promise<unknown>>;
