/** Quotes text as JSON and escapes every control or invisible character. */
export function quoteWhole(text: string): string {
  return JSON.stringify(text).replaceAll(/[\p{C}\p{Zl}\p{Zp}]/gu, (hidden) =>
    hidden.replaceAll(/[^]/g, (unit) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, '0')}`),
  );
}

/** Quotes an identifier for a message, and shortens a long one. */
export function quote(identifier: string): string {
  return quoteWhole(identifier.length > 120 ? `${identifier.slice(0, 117)}...` : identifier);
}
