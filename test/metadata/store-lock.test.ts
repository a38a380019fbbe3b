import { describe, expect } from 'vitest';
import { StoreLock } from '../../src/metadata/store-lock.ts';
import { test } from '../support/fixtures.ts';

describe('StoreLock', () => {
  test('many share the lock, and nobody takes it alone meanwhile', async ({ place }) => {
    const first = await StoreLock.share(place, 0);
    const second = await StoreLock.share(place, 0);
    const takeAlone = (): StoreLock => StoreLock.takeAlone(place);
    expect(takeAlone).toThrow(expect.objectContaining({ code: 'FAILED_PRECONDITION' }));
    first.release();
    first.release();
    expect(takeAlone).toThrow(expect.objectContaining({ code: 'FAILED_PRECONDITION' }));
    second.release();
    takeAlone().release();
  });

  test('sharing waits for who has the lock alone, as long as it may', async ({ place }) => {
    const alone = StoreLock.takeAlone(place);
    await expect(StoreLock.share(place, 0)).rejects.toMatchObject({ code: 'UNAVAILABLE' });
    const shared = StoreLock.share(place, 60_000);
    alone.release();
    (await shared).release();
  });
});
