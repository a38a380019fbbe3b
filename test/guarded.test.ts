import { readFileSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { parseAst } from 'rolldown/parseAst';
import { describe, expect, test } from 'vitest';
import { guarded, warn } from '../src/guarded.ts';

/** A node of a syntax tree, as ESTree has it. */
interface Node {
  readonly type: string;
  readonly start: number;
  readonly [field: string]: unknown;
}

/** What calls a function later, from the event loop, where nobody can catch what it throws. */
const DETACHING = new Set(
  `setTimeout setInterval setImmediate queueMicrotask nextTick
  on once addListener prependListener prependOnceListener addEventListener
  createServer listen tryShutdown end close send async`.split(/\s+/),
);

/** What may be called there: it settles a promise, ends something, or otherwise never throws. */
const HARMLESS = new Set(
  `resolve reject done fail guarded warn
  setImmediate abort exit destroy delete clearTimeout removeEventListener`.split(/\s+/),
);

const FUNCTIONS = new Set(['ArrowFunctionExpression', 'FunctionExpression', 'FunctionDeclaration']);

function isNode(value: unknown): value is Node {
  return typeof value === 'object' && value !== null && typeof Reflect.get(value, 'type') === 'string';
}

function childrenOf(node: Node): Node[] {
  return Object.values(node).flat().filter(isNode);
}

/** A node and all below it; `enter` says below which. */
function* walk(node: Node, enter: (node: Node) => boolean = () => true): Generator<Node> {
  yield node;
  if (enter(node)) for (const child of childrenOf(node)) yield* walk(child, enter);
}

/** The last word of what is called: `c` of `a.b.c()` and of `c()`. */
function nameOf(node: unknown): string {
  if (!isNode(node)) return '';
  if (node.type === 'MemberExpression') return nameOf(node['property']);
  return typeof node['name'] === 'string' ? node['name'] : '';
}

function calleeOf(node: unknown): string {
  return isNode(node) && node.type === 'CallExpression' ? nameOf(node['callee']) : '';
}

function argumentsOf(node: Node): Node[] {
  return [node['arguments']].flat().filter(isNode);
}

/** Whether a call is the last of a promise that has a handler for its rejection. */
function isHandled(node: Node): boolean {
  const [first, second] = argumentsOf(node);
  return (
    (calleeOf(node) === 'catch' && first !== undefined) || (calleeOf(node) === 'then' && second !== undefined)
  );
}

function isGuarded(node: unknown): boolean {
  return calleeOf(node) === 'guarded';
}

/** Whether nothing in a function can throw: it calls what is harmless, or within `try`, or what has its own rule. */
function isHarmless(body: Node): boolean {
  const caught = (node: Node): boolean =>
    (node.type === 'TryStatement' && isNode(node['handler'])) || node['operator'] === 'void';
  const throws = (node: Node): boolean =>
    ['ThrowStatement', 'NewExpression', 'AwaitExpression', 'TaggedTemplateExpression'].includes(node.type) ||
    (node.type === 'CallExpression' && !HARMLESS.has(calleeOf(node)));
  return [...walk(body, (node) => !caught(node) && !FUNCTIONS.has(node.type))].every((node) => !throws(node));
}

/** Says what is wrong with the text of a module: each function that could throw where nobody catches it. */
function faultsOf(text: string): string[] {
  const program: unknown = parseAst(text, { lang: 'ts' });
  if (!isNode(program)) throw new Error('there is no syntax tree');
  const nodes = [...walk(program)];
  const declared = new Map(
    nodes
      .map(({ type, id, key, init, value, ...rest }): [string, unknown] => {
        if (type === 'FunctionDeclaration') return [nameOf(id), { type, ...rest }];
        return [nameOf(type === 'PropertyDefinition' ? key : id), init ?? value];
      })
      .filter(
        ([name, value]) => name !== '' && isNode(value) && (FUNCTIONS.has(value.type) || isGuarded(value)),
      ),
  );
  /** Whether a value is no function, or one that cannot throw. */
  const isSafe = (value: unknown): boolean => {
    if (!isNode(value) || value.type === 'Literal' || value.type === 'ObjectExpression') return true;
    if (FUNCTIONS.has(value.type)) return isNode(value['body']) && isHarmless(value['body']);
    if (value.type === 'CallExpression') return isGuarded(value);
    const name = nameOf(value);
    if (HARMLESS.has(name)) return true;
    const declaration = declared.get(name);
    return isNode(declaration) && isSafe(declaration);
  };
  const at = (node: Node): string => {
    const line = text.slice(0, node.start).split('\n').length;
    return `${line}: ${text.split('\n')[line - 1]?.trim()}`;
  };
  const isFunction = (node: Node): boolean =>
    FUNCTIONS.has(node.type) || isNode(declared.get(nameOf(node)) ?? null);

  const faults = nodes.flatMap((node) => {
    const operand = node[node.type === 'UnaryExpression' ? 'argument' : 'expression'];
    const isAlone = node['operator'] === 'void' || node.type === 'ExpressionStatement';
    if (isAlone && isNode(operand) && isHandled(operand)) {
      return argumentsOf(operand)
        .filter((argument) => !isSafe(argument))
        .map(at);
    }
    if (node['operator'] === 'void') return calleeOf(operand) === '' ? [] : [at(node)];
    if (!DETACHING.has(calleeOf(node))) return [];
    return argumentsOf(node)
      .filter((argument) => isFunction(argument) && !isSafe(argument))
      .map(at);
  });
  return [...new Set(faults)];
}

const src = join(import.meta.dirname, '../src');

describe('nothing is thrown out of a timer, an event or a callback', () => {
  test('in src, a function that nobody can catch cannot throw, or is guarded()', () => {
    const files = readdirSync(src, { recursive: true, encoding: 'utf8' }).filter((file) =>
      file.endsWith('.ts'),
    );
    const faults = files.flatMap((file) =>
      faultsOf(readFileSync(join(src, file), 'utf8')).map((fault) => `src/${file}:${fault}`),
    );
    expect(files.length).toBeGreaterThan(100);
    expect(faults).toEqual([]);
  });

  test.for([
    `setInterval(() => statSync(path), 100);`,
    `const report = () => { statSync(path); }; setTimeout(report, 1);`,
    `function report() { throw new Error('no'); } child.on('message', report);`,
    `setImmediate(() => void work());`,
    `child.once('exit', () => { try { work(); } finally { settle(); } });`,
    `work().then(() => statSync(path), () => {});`,
    `void work().catch((error) => { throw error; });`,
    `server.close(() => closeSync(fd));`,
    `class A { readonly report = () => statSync(path); start() { setTimeout(this.report, 1); } }`,
  ])('the rule sees %s', (text) => {
    expect(faultsOf(text)).toEqual([`1: ${text}`]);
  });

  test.for([
    `setInterval(guarded(() => statSync(path)), 100);`,
    `const report = guarded(() => { statSync(path); }); setTimeout(report, 1);`,
    `child.on('error', reject).once('exit', (status) => resolve(status ?? 0));`,
    `child.on('exit', () => { try { work(); } catch { ended = true; } });`,
    `setImmediate(() => void work().catch(() => {}));`,
    `work().then(guarded(() => statSync(path)), warn);`,
    `await work().then(() => statSync(path));`,
    `stream.write(text); files.map((file) => statSync(file));`,
  ])('the rule accepts %s', (text) => {
    expect(faultsOf(text)).toEqual([]);
  });
});

describe('guarded()', () => {
  const failure = new Error('not today');
  const body = (): never => {
    throw failure;
  };

  test('hands what is thrown to its second argument', () => {
    const caught: unknown[] = [];
    guarded(body, (error) => caught.push(error))();
    expect(caught).toEqual([failure]);
  });

  test('emits a warning for what is thrown, without characters that would control a terminal', async () => {
    const warned = new Promise<Error>((resolve) => {
      process.once('warning', resolve);
    });
    guarded(body, (error) => warn(error, 'a file \u001B[2J'))();
    await expect(warned).resolves.toMatchObject({
      name: 'OverliteWarning',
      message: 'a file \\u001b[2J: Error: not today',
    });
  });

  test('calls its function with all arguments', () => {
    const sums: number[] = [];
    guarded((one: number, other: number) => {
      sums.push(one + other);
    })(1, 2);
    expect(sums).toEqual([3]);
  });
});
