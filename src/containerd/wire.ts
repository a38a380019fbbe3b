import { isUtf8 } from 'node:buffer';
import type { AnyDefinition, PackageDefinition } from '@grpc/proto-loader';

/** How many fields a message may have, nested ones included: reading them takes memory and time. */
const MAX_FIELDS = 20_000;

/** The part of a message type that is checked: which fields, by number, are text and which are messages. */
export interface Shape {
  readonly texts: ReadonlySet<number>;
  readonly messages: ReadonlyMap<number, Shape>;
}

/** The part of a `google.protobuf.DescriptorProto` that is used here. */
interface Descriptor {
  readonly name: string;
  readonly field: readonly { number: number; type: string; typeName: string }[];
  readonly nestedType: readonly Descriptor[];
}

function isMessage(
  definition: AnyDefinition | undefined,
): definition is AnyDefinition & { type: Descriptor } {
  return definition?.['format'] === 'Protocol Buffer 3 DescriptorProto';
}

/** The shape of a message of a package in which no message contains itself. */
export function shapeOf(definitions: PackageDefinition, fullName: string): Shape {
  const definition = definitions[fullName];
  if (!isMessage(definition)) throw new Error(`there is no message ${fullName}`);
  const scope = fullName.slice(0, fullName.lastIndexOf('.'));
  return toShape(definition.type, (name) =>
    shapeOf(definitions, name in definitions ? name : `${scope}.${name}`),
  );
}

function toShape({ field, nestedType }: Descriptor, find: (name: string) => Shape): Shape {
  const texts = new Set<number>();
  const messages = new Map<number, Shape>();
  for (const { number, type, typeName } of field) {
    if (type === 'TYPE_STRING') texts.add(number);
    if (type !== 'TYPE_MESSAGE') continue;
    const nested = nestedType.find(({ name }) => name === typeName);
    messages.set(number, nested === undefined ? find(typeName) : toShape(nested, find));
  }
  return { texts, messages };
}

/**
 * Checks strictly that bytes are a message of a shape. protobufjs 7, with which `@grpc/proto-loader` reads them, accepts
 * text that is cut off and replaces bytes that are not UTF-8 (protobuf.js pull request 2325 rejects them, in version 8), so
 * that two keys could become one.
 *
 * @throws {Error} that says what is wrong
 */
export function checkMessage(bytes: Buffer, shape: Shape): void {
  new MessageChecker(bytes).check(bytes.length, shape);
}

class MessageChecker {
  readonly #bytes: Buffer;
  #at = 0;
  #fields = 0;

  constructor(bytes: Buffer) {
    this.#bytes = bytes;
  }

  check(end: number, shape: Shape): void {
    while (this.#at < end) {
      this.#fields += 1;
      if (this.#fields > MAX_FIELDS) throw new Error(`it has more than ${MAX_FIELDS} fields`);
      const tag = this.#varint(end);
      const field = tag >>> 3;
      if (tag > 0xffff_ffff || field === 0) throw new Error('it has a field without a proper number');
      this.#value(field, tag & 7, { end, shape });
    }
  }

  #value(field: number, type: number, { end, shape }: { end: number; shape: Shape }): void {
    const nested = shape.messages.get(field);
    if ((nested !== undefined || shape.texts.has(field)) && type !== 2) {
      throw new Error(`its field ${field} is of another type`);
    }
    if (type === 0) this.#varint(end);
    else if (type === 1) this.#skip(8, end);
    else if (type === 5) this.#skip(4, end);
    else if (type !== 2) throw new Error(`its field ${field} is of an unknown type`);
    else {
      const length = this.#varint(end);
      const start = this.#at;
      if (nested !== undefined && start + length <= end) {
        this.check(start + length, nested);
        return;
      }
      this.#skip(length, end);
      if (shape.texts.has(field) && !isUtf8(this.#bytes.subarray(start, this.#at))) {
        throw new Error(`its field ${field} is not UTF-8`);
      }
    }
  }

  #skip(length: number, end: number): void {
    if (this.#at + length > end) throw new Error('it is cut off');
    this.#at += length;
  }

  /** A number of up to ten bytes, seven bits each. Numbers beyond 2^53 are not exact, and not needed. */
  #varint(end: number): number {
    let value = 0;
    for (let power = 0; power < 70; power += 7) {
      this.#skip(1, end);
      const byte = this.#bytes[this.#at - 1] ?? 0;
      value += (byte & 0x7f) * 2 ** power;
      if (byte < 0x80) return value;
    }
    throw new Error('it has a number without an end');
  }
}
