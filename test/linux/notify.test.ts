import { expect, test as base } from 'vitest';
import { notifyManager, takePassedSockets } from '../../src/linux/notify.ts';

const VARIABLES = ['LISTEN_PID', 'LISTEN_FDS', 'LISTEN_FDNAMES', 'NOTIFY_SOCKET'];

const test = base.extend<{
  /** Sets variables of the environment, which are unset after the test. */
  setVariables: (variables: Readonly<Record<string, string>>) => void;
}>({
  // oxlint-disable-next-line no-empty-pattern -- Vitest reads the names of what a fixture needs from its parameter.
  setVariables: async ({}, use) => {
    await use((variables) => Object.assign(process.env, variables));
    for (const name of VARIABLES) delete process.env[name];
  },
});

test('takePassedSockets() returns the sockets for this process once, and hides them from its children', ({
  setVariables,
}) => {
  setVariables({ LISTEN_PID: String(process.pid), LISTEN_FDS: '2', LISTEN_FDNAMES: 'a:b' });
  expect(takePassedSockets()).toEqual([3, 4]);
  expect(VARIABLES.filter((name) => name in process.env)).toEqual([]);
  expect(takePassedSockets()).toEqual([]);
});

test.for([
  ['another process', { LISTEN_PID: String(process.pid + 1), LISTEN_FDS: '1' }],
  ['a count that is not a number', { LISTEN_PID: String(process.pid), LISTEN_FDS: '1x' }],
  ['an impossible count', { LISTEN_PID: String(process.pid), LISTEN_FDS: '10000' }],
  ['no count', { LISTEN_PID: String(process.pid) }],
] as const)('takePassedSockets() takes no socket for %s', ([, variables], { setVariables }) => {
  setVariables(variables);
  expect(takePassedSockets()).toEqual([]);
});

test('notifyManager() fails if nothing listens, and does nothing without a manager', ({ setVariables }) => {
  notifyManager({ READY: '1' });
  setVariables({ NOTIFY_SOCKET: '@overlite-test-nothing-listens-here' });
  expect(() => notifyManager({ READY: '1' })).toThrow(
    expect.objectContaining({ code: 'ECONNREFUSED', syscall: 'sendto' }),
  );
  setVariables({ NOTIFY_SOCKET: 'not-an-absolute-path' });
  notifyManager({ READY: '1' });
});
