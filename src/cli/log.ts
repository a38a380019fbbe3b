import { jsonText } from '../quote.ts';

/** How much is logged: each level includes those before it. */
export const LOG_LEVELS = ['error', 'warn', 'info', 'debug'] as const;

export type LogLevel = (typeof LOG_LEVELS)[number];

/** Writes lines of JSON to standard error. */
export class Log {
  readonly #level: number;

  constructor(level: LogLevel) {
    this.#level = LOG_LEVELS.indexOf(level);
    // If the reader of the log goes away, the work goes on.
    process.stderr.on('error', () => {});
  }

  /** Logs a message if the level includes it. Details that are `undefined` are left out. */
  say(level: LogLevel, message: string, details: Readonly<Record<string, unknown>> = {}): void {
    if (LOG_LEVELS.indexOf(level) > this.#level) return;
    process.stderr.write(`${jsonText({ time: new Date(), level, message, ...details })}\n`);
  }
}
