/** Exit statuses, and how errors are shown. Needs no configuration, so that what needs none is quick. */
import { asReplicationError, messageOf, type ErrorCode } from '../core/errors.ts';
import { printableLines } from './printable.ts';

/** `interrupted`: told to stop before there was an answer. */
export const EXIT = { good: 0, no: 1, usage: 2, unreachable: 3, interrupted: 130 } as const;

const UNREACHABLE: ReadonlySet<ErrorCode> = new Set([
  'source_unreachable',
  'nats_unreachable',
  'nats_timeout',
  'nats_no_jetstream',
  'target_unreachable',
  'source_auth',
  'target_auth',
  'nats_auth',
  'verify_stalled',
  'verify_busy',
  'lease_lost',
]);

/** Prints an error for people and gives the exit status that belongs to it. */
export function reportError(thrown: unknown): number {
  const error = asReplicationError(thrown);
  process.stderr.write(`error ${error.code}: ${printableLines(error.message)}\nremedy: ${error.remedy}\n`);
  if (process.env['WAYBILL_DEBUG'] !== undefined)
    process.stderr.write(`${error.stack ?? ''}\n${messageOf(error.cause)}\n`);
  if (error.code === 'config_invalid' || error.code === 'mapping_invalid') return EXIT.usage;
  return UNREACHABLE.has(error.code) ? EXIT.unreachable : EXIT.no;
}
