import { rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import fc from 'fast-check';
import { expect } from 'vitest';
import { OverlayDriver, SnapshotError, type Transaction } from '../../src/index.ts';
import { test } from '../support/fixtures.ts';
import { assertWhole } from '../support/store.ts';

interface Entry {
  kind: 'active' | 'view' | 'committed';
  parent: string | null;
  labels: Record<string, string>;
  files: number;
}

/** What a store is, as plainly as it can be said. */
type Model = Map<string, Entry>;

interface Real {
  readonly root: string;
  /** Two drivers on the same root, used in turn. */
  drivers: OverlayDriver[];
}

type Step =
  | { do: 'prepare' | 'view'; key: string; parent: string; label: string }
  | { do: 'commit'; key: string; name: string; parent: string; label: string }
  | { do: 'checkpoint'; key: string; name: string; label: string }
  | { do: 'remove' | 'delete' | 'stat' | 'usage' | 'chain' | 'write'; key: string }
  | { do: 'update'; key: string; label: string; one: boolean }
  | { do: 'transaction'; steps: Step[]; fails: boolean }
  | { do: 'cleanup' | 'reopen' };

const names = ['a', 'b', 'c', 'd', '../e', 'f\n'];
const name = fc.constantFrom(...names);
const parent = fc.constantFrom('', ...names);
const label = fc.constantFrom('', 'x', 'y');

const change: fc.Arbitrary<Step> = fc.oneof(
  fc.record({ do: fc.constantFrom('prepare' as const, 'view' as const), key: name, parent, label }),
  fc.record({
    do: fc.constant('commit' as const),
    key: name,
    name,
    parent: fc.constantFrom('', '', ...names),
    label,
  }),
  fc.record({ do: fc.constantFrom('remove' as const, 'delete' as const), key: name }),
  fc.record({ do: fc.constant('update' as const), key: name, label, one: fc.boolean() }),
);
const step: fc.Arbitrary<Step> = fc.oneof(
  { weight: 6, arbitrary: change },
  {
    weight: 2,
    arbitrary: fc.record({
      do: fc.constantFrom('stat' as const, 'usage' as const, 'chain' as const, 'write' as const),
      key: name,
    }),
  },
  {
    weight: 2,
    arbitrary: fc.record({
      do: fc.constant('transaction' as const),
      // A commit in a transaction wants a seal, which has tests of its own.
      steps: fc.array(
        change.filter((inner) => inner.do !== 'commit'),
        { maxLength: 4 },
      ),
      fails: fc.boolean(),
    }),
  },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('checkpoint' as const), key: name, name, label }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constantFrom('cleanup' as const, 'reopen' as const) }) },
);

/** Does a step to the model. @returns the code of the error that it has to fail with, if so */
function foretell(model: Model, action: Step): string | undefined {
  switch (action.do) {
    case 'prepare':
    case 'view': {
      const on = action.parent === '' ? undefined : model.get(action.parent);
      if (action.parent !== '' && on === undefined) return 'NOT_FOUND';
      if (on !== undefined && on.kind !== 'committed') return 'INVALID_ARGUMENT';
      if (model.has(action.key)) return 'ALREADY_EXISTS';
      model.set(action.key, {
        kind: action.do === 'view' ? 'view' : 'active',
        parent: action.parent || null,
        labels: labelsOf(action.label),
        files: 1,
      });
      return undefined;
    }
    case 'commit': {
      if (model.has(action.name)) return 'ALREADY_EXISTS';
      const active = model.get(action.key);
      if (active === undefined) return 'NOT_FOUND';
      if (active.kind !== 'active') return 'FAILED_PRECONDITION';
      if (action.parent !== '') {
        if (active.parent !== null && active.parent !== action.parent) return 'INVALID_ARGUMENT';
        const on = model.get(action.parent);
        if (on === undefined) return 'NOT_FOUND';
        if (on.kind !== 'committed') return 'FAILED_PRECONDITION';
      }
      model.delete(action.key);
      model.set(action.name, {
        ...active,
        kind: 'committed',
        parent: action.parent || active.parent,
        labels: labelsOf(action.label),
      });
      return undefined;
    }
    case 'checkpoint': {
      if (model.has(action.name)) return 'ALREADY_EXISTS';
      const active = model.get(action.key);
      if (active === undefined) return 'NOT_FOUND';
      if (active.kind !== 'active') return 'FAILED_PRECONDITION';
      model.set(action.name, { ...active, kind: 'committed', labels: labelsOf(action.label) });
      return undefined;
    }
    case 'remove':
    case 'delete': {
      const found = model.get(action.key);
      if (found === undefined) return 'NOT_FOUND';
      if ((action.do === 'delete') !== (found.kind === 'committed')) return 'FAILED_PRECONDITION';
      if ([...model.values()].some((entry) => entry.parent === action.key)) return 'FAILED_PRECONDITION';
      model.delete(action.key);
      return undefined;
    }
    case 'update': {
      const found = model.get(action.key);
      if (found === undefined) return 'NOT_FOUND';
      const kept = action.one ? Object.entries(found.labels).filter(([key]) => key !== 'label') : [];
      model.set(action.key, { ...found, labels: { ...Object.fromEntries(kept), ...labelsOf(action.label) } });
      return undefined;
    }
    case 'stat':
    case 'usage':
    case 'chain':
      return model.has(action.key) ? undefined : 'NOT_FOUND';
    case 'transaction': {
      const draft: Model = new Map(model);
      if (action.steps.some((inner) => foretell(draft, inner) !== undefined) || action.fails)
        return 'rolled back';
      model.clear();
      for (const [key, entry] of draft) model.set(key, entry);
      return undefined;
    }
    default:
      return undefined;
  }
}

function labelsOf(text: string): Record<string, string> {
  return text === '' ? {} : { label: text };
}

function changeWithin(tx: Transaction, action: Step): void {
  switch (action.do) {
    case 'prepare':
    case 'view':
      tx[action.do](action.key, action.parent, { labels: labelsOf(action.label) });
      break;
    case 'remove':
    case 'delete':
      tx[action.do](action.key);
      break;
    case 'update':
      tx.update(action.key, { labels: labelsOf(action.label) }, action.one ? ['labels.label'] : []);
      break;
    default:
      throw new Error(`${action.do} is not for a transaction`);
  }
}

function open(root: string): Promise<OverlayDriver> {
  return OverlayDriver.open(root, { backups: false });
}

class Rollback extends Error {}

async function perform(real: Real, model: Model, action: Step): Promise<void> {
  const driver = real.drivers[0];
  if (driver === undefined) throw new Error('there is no driver');
  real.drivers.push(...real.drivers.splice(0, 1));
  switch (action.do) {
    case 'prepare':
    case 'view':
      expect(await driver[action.do](action.key, action.parent, { labels: labelsOf(action.label) })).toEqual(
        await driver.mounts(action.key),
      );
      break;
    case 'commit': {
      const options = {
        labels: labelsOf(action.label),
        ...(action.parent !== '' && { parent: action.parent }),
      };
      expect(await driver.commit(action.name, action.key, options)).toEqual(await driver.stat(action.name));
      break;
    }
    case 'checkpoint':
      expect(await driver.checkpoint(action.name, action.key, { labels: labelsOf(action.label) })).toEqual(
        await driver.stat(action.name),
      );
      break;
    case 'remove':
    case 'delete':
      expect(await driver[action.do](action.key)).toEqual({});
      break;
    case 'update':
      await driver.update(action.key, { labels: labelsOf(action.label) }, action.one ? ['labels.label'] : []);
      break;
    case 'stat':
      expect(await driver.parent(action.key)).toBe((await driver.stat(action.key)).parent);
      break;
    case 'usage': {
      const entry = model.get(action.key);
      expect((await driver.usage(action.key)).inodes).toBe(entry?.kind === 'view' ? 0 : entry?.files);
      break;
    }
    case 'chain': {
      const expected: string[] = [];
      for (let up = model.get(action.key)?.parent; typeof up === 'string'; up = model.get(up)?.parent)
        expected.push(up);
      expect((await driver.chain(action.key)).map((info) => info.name)).toEqual(expected);
      break;
    }
    case 'write': {
      const entry = model.get(action.key);
      if (entry?.kind !== 'active') break;
      writeFileSync(`${(await driver.stat(action.key)).directory}/fs/file-${entry.files}`, 'content');
      entry.files += 1;
      break;
    }
    case 'transaction':
      await driver.transaction((tx) => {
        for (const inner of action.steps) changeWithin(tx, inner);
        if (action.fails) throw new Rollback();
      });
      break;
    case 'cleanup':
      expect((await driver.cleanup()).deferred).toEqual([]);
      break;
    case 'reopen':
      await driver.close();
      real.drivers = [...real.drivers.slice(0, -1), await open(real.root)];
      break;
  }
}

async function check(real: Real, model: Model): Promise<void> {
  const found: Record<string, unknown> = {};
  for await (const { name: key, kind, parent: on, labels } of real.drivers[0]?.snapshots() ?? []) {
    found[key] = { kind, parent: on, labels };
  }
  const expected = [...model].map(([key, { kind, parent: on, labels }]) => [
    key,
    { kind, parent: on, labels },
  ]);
  expect(found).toEqual(Object.fromEntries(expected));
}

/** What came of a step: nothing, or the code of its error. @throws what is neither foreseen nor a SnapshotError */
async function outcomeOf(real: Real, model: Model, action: Step): Promise<string | undefined> {
  try {
    await perform(real, model, action);
    return undefined;
  } catch (error) {
    const isSnapshotError = error instanceof SnapshotError;
    if (action.do === 'transaction' && (error instanceof Rollback || isSnapshotError)) return 'rolled back';
    if (isSnapshotError) return error.code;
    throw error;
  }
}

test('random sequences of operations do to a store what they do to a plain model of it', async ({
  place,
}) => {
  let round = 0;
  await fc.assert(
    fc.asyncProperty(fc.array(step, { minLength: 1, maxLength: 40 }), async (steps) => {
      const root = join(place, String((round += 1)));
      const real: Real = { root, drivers: [await open(root), await open(root)] };
      const model: Model = new Map();
      try {
        for (const action of steps) {
          const expected = foretell(model, action);
          const outcome = await outcomeOf(real, model, action);
          expect({ action, outcome }).toEqual({ action, outcome: expected });
        }
        await check(real, model);
        for (const driver of real.drivers) await driver.close();
        assertWhole(root);
      } finally {
        for (const driver of real.drivers) await driver.close();
        rmSync(root, { recursive: true });
      }
    }),
    { numRuns: 150, includeErrorInReport: true },
  );
});
