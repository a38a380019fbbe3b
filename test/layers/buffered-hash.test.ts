import { createHash } from 'node:crypto';
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { BufferedHash } from '../../src/layers/buffered-hash.ts';

test('BufferedHash gives the hash of all pieces, of any size, in their order', () => {
  // Pieces around the size of the buffer, and larger ones, which go past it.
  const size = fc.oneof(fc.nat(40), fc.integer({ min: 16_000, max: 17_000 }), fc.nat(100_000));
  const piece = fc.record({ size, byte: fc.nat(255), asText: fc.boolean() });
  fc.assert(
    fc.property(fc.constantFrom('sha1', 'sha256'), fc.array(piece, { maxLength: 8 }), (algorithm, pieces) => {
      const hash = new BufferedHash(algorithm);
      const expected = createHash(algorithm);
      for (const { size: length, byte, asText } of pieces) {
        const bytes = Buffer.alloc(length, byte);
        expected.update(bytes);
        if (asText) hash.addText(bytes.toString('latin1'));
        else hash.add(bytes);
        // It must have taken a copy.
        bytes.fill(0);
      }
      expect(hash.digest()).toBe(expected.digest('hex'));
    }),
    { numRuns: 50 },
  );
});
