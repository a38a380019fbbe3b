// Puts load on `overlite serve`, as many containerds at once would: 1, 8 and twice 64 connections make calls of all kinds, for
// 30 seconds each or as long as --seconds says, or as many as --calls says. It fails if a call fails, if the server
// keeps memory, descriptors or directories, if it does not stop well, or if its store is not clean afterwards.
//
//     node bench/containerd-load.mjs [--seconds N | --calls N] [--connections N,…] [--json]
import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import { once as happened } from 'node:events';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, readdirSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { Client, credentials } from '@grpc/grpc-js';
import { removeSync } from 'fs-extra/esm';
import { packageDefinition } from '../dist/containerd/index.js';
import { OverlayDriver } from '../dist/index.js';

const { values } = parseArgs({
  options: {
    seconds: { type: 'string', default: '30' },
    calls: { type: 'string' },
    connections: { type: 'string', default: '1,8,64,64' },
    json: { type: 'boolean', default: false },
  },
});
const service = packageDefinition['containerd.services.snapshots.v1.Snapshots'];
const main = fileURLToPath(new URL('../dist/cli/main.js', import.meta.url));

/** A client with a connection of its own, and what its calls took. */
class LoadClient {
  /** @type {Client} */
  #client;
  /** @type {Map<string, number[]>} */
  #latencies;

  /** @param {string} address @param {Map<string, number[]>} latencies */
  constructor(address, latencies) {
    const own = { 'grpc.use_local_subchannel_pool': 1 };
    this.#client = new Client(`unix:${address}`, credentials.createInsecure(), own);
    this.#latencies = latencies;
  }

  /** @param {string} method @param {object} request @returns {Promise<any>} */
  async call(method, request) {
    const { path, requestSerialize, responseDeserialize } = service[method];
    const started = performance.now();
    const answer = await new Promise((resolve, reject) => {
      this.#client.makeUnaryRequest(
        path,
        requestSerialize,
        responseDeserialize,
        request,
        (error, response) => {
          if (error === null) resolve(response);
          else reject(new Error(`${method} ${JSON.stringify(request)}: ${error.message}`));
        },
      );
    });
    this.#took(method, started);
    return answer;
  }

  /** @param {string[]} filters @returns {Promise<{ name: string }[]>} */
  async list(filters) {
    const { path, requestSerialize, responseDeserialize } = service.List;
    const started = performance.now();
    const stream = this.#client.makeServerStreamRequest(path, requestSerialize, responseDeserialize, {
      filters,
    });
    const infos = [];
    for await (const { info } of stream) infos.push(...info);
    this.#took('List', started);
    return infos;
  }

  close() {
    this.#client.close();
  }

  /** @param {string} method @param {number} started */
  #took(method, started) {
    const latencies = this.#latencies.get(method) ?? [];
    this.#latencies.set(method, latencies);
    latencies.push(performance.now() - started);
  }
}

/** What a client does over and over: a layer, a container on it, a look at both, and all is gone again. */
async function round(client, id) {
  const layer = `layer ${id}`;
  const labels = { 'containerd.io/gc.root': 'yes', client: id };
  const { mounts } = await client.call('Prepare', { key: `extract ${id}`, parent: 'base', labels });
  const upper = mounts[0].options.find((option) => option.startsWith('upperdir=')).slice('upperdir='.length);
  for (let i = 0; i < 5; i += 1) writeFileSync(join(upper, `file ${i}`), 'x'.repeat(1000 * i));
  await client.call('Commit', { key: `extract ${id}`, name: layer, labels });
  await client.call('Update', {
    info: { name: layer, labels: { used: id } },
    updateMask: { paths: ['labels.used'] },
  });
  await client.call('Prepare', { key: `container ${id}`, parent: layer });
  await client.call('View', { key: `view ${id}`, parent: layer });
  await client.call('Mounts', { key: `container ${id}` });
  const { info } = await client.call('Stat', { key: layer });
  assert.equal(info.labels.used, id);
  const { inodes } = await client.call('Usage', { key: layer });
  assert.equal(inodes, 6);
  const found = await client.list([`parent==${JSON.stringify(layer)}`]);
  assert.equal(found.length, 2);
  for (const key of [`view ${id}`, `container ${id}`, layer]) await client.call('Remove', { key });
}

/** What the server has of the machine. */
function look(pid, root) {
  const status = readFileSync(`/proc/${pid}/status`, 'utf8');
  return {
    memory: Number(/^VmRSS:\s+(\d+)/m.exec(status)[1]) * 1024,
    descriptors: readdirSync(`/proc/${pid}/fd`).length,
    directories: readdirSync(join(root, 'snapshots')).length,
  };
}

/** Puts load on the server until the time is over or the calls are made. */
async function load(address, connections) {
  const latencies = new Map();
  const clients = Array.from({ length: connections }, () => new LoadClient(address, latencies));
  const calls = () => [...latencies.values()].reduce((sum, all) => sum + all.length, 0);
  const until = performance.now() + Number(values.seconds) * 1000;
  const goesOn = () =>
    values.calls === undefined ? performance.now() < until : calls() < Number(values.calls);
  const started = performance.now();
  await Promise.all(
    clients.map(async (client, at) => {
      let turn = 0;
      do {
        await round(client, `${connections}-${at}-${turn}`);
        turn += 1;
        if (turn % 50 === 0) await client.call('Cleanup', {});
      } while (goesOn());
    }),
  );
  const seconds = (performance.now() - started) / 1000;
  await clients[0].call('Cleanup', {});
  for (const client of clients) client.close();
  return { connections, calls: calls(), seconds, latencies };
}

/** The figures of a run. */
function figures({ connections, calls, seconds, latencies }) {
  const methods = {};
  for (const [method, all] of latencies) {
    const sorted = all.toSorted((a, b) => a - b);
    const at = (part) =>
      Number(sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * part))].toFixed(2));
    methods[method] = { calls: sorted.length, p50: at(0.5), p99: at(0.99), max: at(1) };
  }
  return { connections, calls, callsPerSecond: Math.round(calls / seconds), methods };
}

const directory = mkdtempSync(join(tmpdir(), 'overlite-load-'));
const root = join(directory, 'store');
const address = join(directory, 'socket');
// The server holds this open, if not now, then from its first backup on, which is made after a minute.
const made = await OverlayDriver.open(root, { backups: false });
await made.close();
mkdirSync(join(root, 'backups'), { mode: 0o700 });
const server = spawn(process.execPath, [main, 'serve', '--root', root, '--address', address], {
  stdio: ['ignore', 'ignore', 'pipe'],
});
let log = '';
server.stderr.setEncoding('utf8').on('data', (text) => (log += text));
try {
  while (!existsSync(address)) {
    assert.equal(server.exitCode, null, log);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  const first = new LoadClient(address, new Map());
  await first.call('Prepare', { key: 'making' });
  await first.call('Commit', { key: 'making', name: 'base' });
  // So that what is made once and kept has been made.
  for (let i = 0; i < 30; i += 1) await round(first, `first-${i}`);
  await first.call('Cleanup', {});
  first.close();
  await settled();
  const before = look(server.pid, root);
  const runs = [];
  for (const connections of values.connections.split(',').map(Number)) {
    const run = figures(await load(address, connections));
    await settled();
    runs.push({ ...run, after: look(server.pid, root) });
  }
  const after = look(server.pid, root);
  assert.equal(after.descriptors, before.descriptors, 'descriptors are left open');
  assert.equal(after.directories, 1, 'directories are left');
  // The last run is the same as the one before it: what the first of them has needed is enough for the second, too.
  const [once, again] = runs.slice(-2).map((run) => run.after.memory);
  assert.ok(again < once + 100 * 1024 * 1024, `memory grew from ${once} to ${again}`);
  server.kill('SIGTERM');
  const [status] = await happened(server, 'exit');
  assert.equal(status, 0, log);
  assert.equal(
    log
      .split('\n')
      .filter((line) => line.includes('"code"'))
      .join('\n'),
    '',
  );
  const check = spawnSync(process.execPath, [main, 'check', '--root', root, '--json'], { encoding: 'utf8' });
  assert.equal(check.status, 0, check.stdout + check.stderr);
  const result = { before, runs, after, check: JSON.parse(check.stdout).status };
  if (values.json) console.log(JSON.stringify(result));
  else show(result);
} finally {
  server.kill('SIGKILL');
  removeSync(directory);
}

/** Waits until the server has noticed that its clients are gone. */
async function settled() {
  for (let last = -1; ;) {
    const { descriptors } = look(server.pid, root);
    if (descriptors === last) return;
    last = descriptors;
    await new Promise((resolve) => setTimeout(resolve, 500));
  }
}

function show({ before, runs, after, check }) {
  const mib = (bytes) => `${Math.round(bytes / 1024 / 1024)} MiB`;
  for (const { connections, calls, callsPerSecond, methods, after: then } of runs) {
    console.log(`\n${connections} connections: ${calls} calls, ${callsPerSecond} a second, in milliseconds:`);
    console.table(methods);
    console.log(
      `memory ${mib(then.memory)}, ${then.descriptors} descriptors, ${then.directories} directories`,
    );
  }
  console.log(
    `\nmemory before ${mib(before.memory)}, after ${mib(after.memory)}; descriptors ${before.descriptors} and ${after.descriptors}; the check: ${check}`,
  );
}
