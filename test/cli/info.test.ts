import { describe, expect } from 'vitest';
import { test } from '../support/cli.ts';
import { needs } from '../support/needs.ts';

const lacking = needs('root');

describe.skipIf(lacking)(`overlite info${lacking}`, () => {
  test('`info` prints the ancestors and the children of a snapshot', ({ printed }) => {
    expect(printed('info', 'app')).toMatch(/^chain +base\nchildren +work reader$/m);
  });
});
