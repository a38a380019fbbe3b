/** How much is said: each level says what those before it say, too. */
export const LOG_LEVELS = ['error', 'warn', 'info', 'debug'] as const;

export type LogLevel = (typeof LOG_LEVELS)[number];

/** Writes lines of JSON to standard error. */
export class Log {
  readonly #level: number;

  constructor(level: LogLevel) {
    this.#level = LOG_LEVELS.indexOf(level);
    // Whoever reads the log may go away; the work goes on.
    process.stderr.on('error', () => {});
  }

  /** Says something, if it is important enough. What is `undefined` is left out. */
  say(level: LogLevel, message: string, details: Readonly<Record<string, unknown>> = {}): void {
    if (LOG_LEVELS.indexOf(level) > this.#level) return;
    process.stderr.write(`${JSON.stringify({ time: new Date(), level, message, ...details })}\n`);
  }
}
