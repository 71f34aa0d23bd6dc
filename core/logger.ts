import { pino, type Logger as PinoLogger } from 'pino';

/** Structured log, one line an event. Never a row's values, never a secret. */
export type Logger = PinoLogger;

export type LogLevel = 'trace' | 'debug' | 'info' | 'warn' | 'error' | 'silent';

/** A logger that writes JSON lines to standard error, so that standard output stays for data. */
export function createLogger(level: LogLevel, bindings: Record<string, string> = {}): Logger {
  return pino(
    { level, base: { pid: process.pid, ...bindings }, timestamp: pino.stdTimeFunctions.isoTime },
    pino.destination({ dest: 2, sync: true }),
  );
}
