/** `waybill explain`: where each field of a record came from, down to the log position, and what lost. */
import { targetOf } from '../../apply/target-kind.ts';
import { flowSettings, type Config } from '../../core/config.ts';
import { ReplicationError } from '../../core/errors.ts';
import { describePosition, parsePosition } from '../../core/position.ts';
import type { Entity } from '../../transform/canonical/entity.ts';
import { LINEAGE_COLUMNS, TENANT_COLUMN } from '../../transform/canonical/envelope.ts';
import { isShared, loadFlowPlan, type FlowPlan } from '../../transform/flow-plan.ts';
import { printTable, readConfig, unknownName, type GlobalOptions } from '../context.ts';
import { EXIT } from '../exit-status.ts';

export interface Origin {
  readonly source: string;
  readonly table: string;
  readonly key: string;
  readonly position: string;
  readonly time: string;
}

/** The lineage of a group, as the record's column `lineage_groups` has it. */
interface GroupLineage extends Partial<Origin> {
  readonly rule: string;
  /** Number of the block in the source's mapping; absent of records that were written before it was kept. */
  readonly block?: number;
  readonly merged?: readonly Saying[];
  readonly advisory?: readonly Saying[];
}

type Saying = Origin & { readonly values: Readonly<Record<string, string | null>> };

export interface ExplainedField {
  readonly field: string;
  readonly value: string | null;
  readonly origin: Partial<Origin>;
  /** Who decided: the owner, or a merge. */
  readonly decided: string;
  /** The place in the mapping that makes the value. */
  readonly rule: string;
  /** What others said that is part of the value as well. */
  readonly merged: readonly SaidField[];
  readonly lost: readonly SaidField[];
}

export type SaidField = Origin & { readonly value: string | null };

/**
 * `parts` are the key of the record: `sku=A-1 location=WH/Stock`, or its values in order; parts that are left out are
 * empty. Exit status 1 when there is no such record.
 */
export async function explain(
  entityName: string,
  parts: string[],
  options: GlobalOptions & { json?: boolean },
): Promise<number> {
  const { flow, key, fields } = await explainFlow(readConfig(options), entityName, parts);
  if (fields === undefined) {
    console.error(`there is no ${entityName} ${[...key.values()].join('/')}`);
    return EXIT.no;
  }
  if (options.json === true) console.log(JSON.stringify({ entity: entityName, flow, fields }, undefined, 2));
  else print(fields);
  return EXIT.good;
}

/** The flow that makes an entity, and each field of one of its records; no fields where there is no such record. */
export async function explainFlow(
  config: Config,
  entityName: string,
  parts: readonly string[],
): Promise<{ flow: string; key: ReadonlyMap<string, string>; fields: readonly ExplainedField[] | undefined }> {
  const flows = Object.entries(config.canonicalFlows);
  const found = flows.find(([, settings]) => settings.canonical === entityName);
  if (found === undefined)
    return unknownName(
      'entity',
      entityName,
      flows.map(([, settings]) => settings.canonical),
    );
  const [flow, settings] = found;
  const plan = await loadFlowPlan(flow, settings);
  const key = keyOf(plan.entity, parts);
  const values = await readRecord(config, plan, key);
  return { flow, key, fields: values === undefined ? undefined : explainFields(plan, values) };
}

function keyOf(entity: Entity, parts: readonly string[]): Map<string, string> {
  const key = new Map(entity.key.map((name) => [name, '']));
  const named = parts.length > 0 && parts.every((part) => key.has(part.slice(0, part.indexOf('='))));
  if (!named && parts.length > entity.key.length)
    throw new ReplicationError('config_invalid', `the key of ${entity.name} is: ${entity.key.join(', ')}`);
  for (const [index, part] of parts.entries()) {
    const equals = part.indexOf('=');
    if (named) key.set(part.slice(0, equals), part.slice(equals + 1));
    else key.set(entity.key[index]!, part);
  }
  return key;
}

async function readRecord(
  config: Config,
  { name, entity, settings }: FlowPlan,
  key: ReadonlyMap<string, string>,
): Promise<ReadonlyMap<string, string | null> | undefined> {
  const { to, schema } = flowSettings(config, name)!;
  const desk = await (await targetOf(config.targets[to]!)).openDesk('waybill explain');
  try {
    const columns = [...entity.fields, ...LINEAGE_COLUMNS].map((column) => column.name);
    const row = await desk.readRow(schema!, entity.name, columns, [[TENANT_COLUMN.name, settings.tenant], ...key]);
    return row === undefined ? undefined : new Map(columns.map((column, index) => [column, row[index]!]));
  } finally {
    await desk.close();
  }
}

/** Each field of a record with what its lineage says. */
export function explainFields(plan: FlowPlan, values: ReadonlyMap<string, string | null>): ExplainedField[] {
  const { entity } = plan;
  const of = (name: string): string => values.get(`lineage_${name}`) ?? '';
  const whole: Origin = {
    source: of('source'),
    table: of('table'),
    key: of('key'),
    position: of('position'),
    time: of('time'),
  };
  const groups = JSON.parse(values.get('lineage_groups') ?? '{}') as Readonly<Record<string, GroupLineage>>;
  const shared = isShared(plan);
  return entity.fields.map((field): ExplainedField => {
    const value = values.get(field.name) ?? null;
    const base = { field: field.name, value, merged: [] };
    if (field.derived) return { ...base, origin: {}, decided: 'computed', rule: '', lost: [] };
    if (field.key) {
      const rules = plan.sources.flatMap(({ name }) => ruleOf(plan, name, field.name));
      // Whatever makes a record gives its key; since when is not kept.
      return { ...base, origin: {}, decided: 'key', rule: rules.join(' or '), lost: [] };
    }
    const said = groups[field.group] ?? (shared ? { rule: 'not known' } : { ...whole, rule: `owner ${whole.source}` });
    const { source, table, key, position, time, block, ...group }: GroupLineage = said;
    const from: Partial<Origin> = source === undefined ? {} : ({ source, table, key, position, time } as Origin);
    const rules = source === undefined ? [] : ruleOf(plan, source, field.name, block);
    const saidBy = (sayings: readonly Saying[] = []): SaidField[] =>
      sayings.flatMap(({ values: all, ...by }) => (field.name in all ? [{ ...by, value: all[field.name]! }] : []));
    const lost = saidBy(group.advisory);
    const isAnswered = groups[field.group] !== undefined && source === undefined;
    if (rules.length === 0 && value === null && !isAnswered)
      return { ...base, origin: {}, decided: 'nothing supplied', rule: '', lost };
    return { ...base, origin: from, decided: group.rule, rule: told(rules), merged: saidBy(group.merged), lost };
  });
}

/** Where in its mapping a source makes a field: in the block of that number; in each that may, where none is named. */
function ruleOf({ entity, settings, sources }: FlowPlan, source: string, field: string, block?: number): string[] {
  const mapping = sources.find(({ name }) => name === source)?.mapping;
  if (mapping === undefined) return [];
  // Numbered as they are compiled.
  const blocks = mapping.blocks.filter(
    (each) => each.entity === entity || (settings.evidence as readonly string[]).includes(each.entity.name),
  );
  return blocks
    .filter((each, index) => (block === undefined ? each.entity === entity : index === block))
    .filter((each) => each.fields.some(({ name }) => name === field))
    .map((each) => `${mapping.name}, ${mapping.place}:${mapping.lineOf([...each.path, 'fields', field])}`);
}

function told(rules: readonly string[]): string {
  return rules.length < 2 ? (rules[0] ?? '') : `one of these, which is not kept: ${rules.join('; ')}`;
}

function print(fields: readonly ExplainedField[]): void {
  printTable(
    ['FIELD', 'VALUE', 'DECIDED BY', 'SOURCE', 'TABLE', 'KEY', 'POSITION', 'COMMITTED', 'RULE'],
    fields.flatMap(({ field, value, origin, decided, rule, merged, lost }) => [
      [field, value ?? '-', decided, ...originCells(origin), rule],
      ...merged.map((part) => ['', part.value ?? '-', 'counts as well', ...originCells(part), '']),
      ...lost.map((loser) => ['', `(${loser.value ?? '-'})`, 'not applied', ...originCells(loser), '']),
    ]),
  );
}

function originCells({ source, table, key, position, time }: Partial<Origin>): string[] {
  const parsed = position === undefined ? undefined : parsePosition(position);
  return [
    source ?? '-',
    table ?? '-',
    key ?? '-',
    parsed === undefined ? (position ?? '-') : describePosition(parsed),
    time ?? '-',
  ];
}
