/** Columns whose values the console does not show. */
import { makerOf, type Config } from '../../core/config.ts';
import { HIDDEN, type ShownValue } from '../../monitoring/console/views.ts';

/** Names that say themselves that their values are secret. */
const SECRET =
  /(^|_)(pass(word|wd|phrase|code)?|pwd|secret|token|salt|otp|pin|cvv2?|cvc|ssn|iban)(_|$)|password|secret|api_?key|private_?key|credential|card_?(number|no)/i;

export type HidesColumn = (schema: string, table: string, column: string) => boolean;

/** Those of `monitoring.hide`, all that the source of the flow leaves out or changes at capture, and those named like secrets. */
export function hiddenColumns(config: Config, flow: string): HidesColumn {
  const maker = makerOf(config, flow);
  const names = maker === undefined ? [config.flows[flow]!.mirror] : Object.keys(config.canonicalFlows[maker]!.from);
  const rules = names.flatMap((name) => {
    const source: object = config.sources[name]!;
    return 'columns' in source ? patternsIn(source.columns) : [];
  });
  const patterns = [...config.monitoring.hide, ...rules].map(globToRegExp);
  return (schema, table, column) =>
    SECRET.test(column) || patterns.some((pattern) => pattern.test(`${schema}.${table}.${column}`));
}

export function shown(value: string | null | 0 | undefined, hidden: boolean): ShownValue {
  if (value === 0) return { unchanged: true };
  if (value === null || value === undefined) return null;
  return hidden ? HIDDEN : value;
}

function globToRegExp(pattern: string): RegExp {
  const escaped = pattern.replaceAll(/[.+?^${}()|[\]\\]/g, '\\$&').replaceAll('*', '.*');
  return new RegExp(`^${escaped}$`, 'i');
}

/** Every text of the form schema.table.column within the rules of a source, of whatever kind the rule is. */
function patternsIn(rules: unknown): string[] {
  if (typeof rules === 'string') return /^[^.]+\..+\.[^.]+$/.test(rules) ? [rules] : [];
  if (rules === null || typeof rules !== 'object') return [];
  return Object.entries(rules).flatMap(([key, value]) =>
    Array.isArray(rules) || /^(exclude|hash|mask|encrypt|columns)$/.test(key) ? patternsIn(value) : [],
  );
}
