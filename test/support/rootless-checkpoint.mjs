// Checkpoints and commits, as someone other than root in a user namespace, a layer that is mounted there; says what the
// layers hold.
// usage: unshare -Urm node rootless-checkpoint.mjs ROOT
import { execFileSync } from 'node:child_process';
import { mkdirSync } from 'node:fs';
import { OverlayDriver } from '../../dist/index.js';

const [root] = process.argv.slice(2);
const sh = (script, cwd) => execFileSync('sh', ['-ec', script], { cwd, encoding: 'utf8' });
const driver = await OverlayDriver.open(`${root}/store`);
const layer = async (key) => `${(await driver.stat(key)).directory}/fs`;
await driver.prepare('making base');
sh('mkdir d; echo 1 > d/f; echo 2 > gone', await layer('making base'));
await driver.commit('base', 'making base');
await driver.prepare('k', 'base');
const [{ type, source, options }] = await driver.mounts('k');
const target = `${root}/target`;
mkdirSync(target);
execFileSync('mount', ['-t', type, source, target, '-o', options.join(',')]);
sh('rm gone; rm -r d; mkdir d; echo 9 > d/new', target);
const copy = await driver.checkpoint('copy', 'k');
const { inUse, seal } = await driver.commit('n', 'k');
execFileSync('umount', [target]);
const { deferred } = await driver.cleanup();
const [view] = await driver.view('v', 'copy');
execFileSync('mount', ['-t', view.type, view.source, target, '-o', view.options.join(',')]);
const seen = sh('find . -mindepth 1 | sort', target).trim().split('\n');
execFileSync('umount', [target]);
await driver.close();
console.log(JSON.stringify({ inUse, same: copy.seal === seal, deferred, seen }));
