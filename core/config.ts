/** The configuration file: one strict schema; every problem is reported at once, with its path and the nearest known key. */
import { readFileSync } from 'node:fs';
import { dirname, resolve } from 'node:path';
import { z } from 'zod';
import {
  CANONICAL_SOURCE,
  canonicalFlowSchema,
  outboundFlowSchema,
  type CanonicalFlowConfig,
  type OutboundFlowConfig,
} from './canonical-config.ts';
import { withSecretFiles } from './config-json-schema.ts';
import { expand, readYaml, type Environment } from './config-text.ts';
import { durationSchema, nameSchema, sizeSchema } from './config-values.ts';
import { ColumnRules, columnRulesSchema } from './column-rules.ts';
import { problemsError, ReplicationError } from './errors.ts';
import { nearest } from './nearest.ts';
import { serverName, serverUrls } from './source-url.ts';
import { compileTablePatterns } from './table-pattern.ts';

const name = nameSchema;
const duration = durationSchema;
/** How often something is done again and again. */
const period = durationSchema.refine((ms) => ms > 0, 'must be longer than nothing');
const size = sizeSchema;
const secretUrl = z.string().min(1);
const tablePattern = z.string().regex(/^!?[^.]+\..+$/, 'must have the form schema.table, with * for any characters');

const tls = z.strictObject({
  ca_file: z.string().optional(),
  cert_file: z.string().optional(),
  key_file: z.string().optional(),
  reject_unauthorized: z.boolean().default(true),
});

const natsSchema = z.strictObject({
  servers: z.array(z.string().min(1)).min(1).default(['nats://127.0.0.1:4222']),
  prefix: name.default('waybill'),
  replicas: z.number().int().min(1).max(5).default(1),
  creds_file: z.string().optional(),
  user: z.string().optional(),
  password: z.string().optional(),
  token: z.string().optional(),
  tls: tls.optional(),
  stream: z
    .strictObject({
      max_age: duration.prefault('7d'),
      max_bytes: size.prefault('8GB'),
      /** How long an acknowledged frame may still be lost with the broker's power; the slot waits that long. */
      sync_interval: duration.prefault('2m'),
    })
    .prefault({}),
});

const anySource = {
  url: secretUrl,
  snapshot: z.enum(['initial', 'never']).default('initial'),
  heartbeat: duration.prefault('10s'),
  frame_bytes: size.prefault('512KB'),
  snapshot_chunk_rows: z.number().int().min(1).max(1_000_000).default(20_000),
  /** What snapshots may read of the source in a second; left out: as much as they can. */
  snapshot_max_rows_per_second: z.number().int().min(1).optional(),
  tls: tls.optional(),
  /** Columns that never reach the stream as they are. */
  columns: columnRulesSchema.optional(),
};

const postgresSourceSchema = z.strictObject({
  kind: z.literal('postgres'),
  tables: z.array(tablePattern).min(1).default(['public.*']),
  slot: z
    .string()
    .regex(/^[a-z0-9_]{1,63}$/, 'must be lower case letters, digits and _')
    .optional(),
  /** How many connections a snapshot reads with. */
  snapshot_connections: z.number().int().min(1).max(32).default(4),
  /** `on`: large transactions are received while they are in progress, and kept in `spool_dir` until their commit. */
  streaming: z.enum(['on', 'off']).default('off'),
  /** Left out: the folder for temporary files. */
  spool_dir: z.string().min(1).optional(),
  spool_bytes: size.prefault('8GB'),
  publication: z
    .string()
    .regex(/^[a-z_][a-z0-9_]{0,62}$/, 'must be lower case letters, digits and _')
    .optional(),
  ...anySource,
});

const mysqlSource = {
  tables: z.array(tablePattern).min(1),
  /** Id among everything that replicates from the source; by default made from prefix and name. */
  server_id: z
    .number()
    .int()
    .min(1)
    .max(2 ** 32 - 1)
    .optional(),
  ...anySource,
};

const sourceSchema = z.discriminatedUnion('kind', [
  postgresSourceSchema,
  z.strictObject({ kind: z.literal('mysql'), ...mysqlSource }),
  z.strictObject({ kind: z.literal('mariadb'), ...mysqlSource }),
]);

const targetSchema = z.strictObject({
  kind: z.enum(['postgres', 'mysql', 'mariadb']),
  url: secretUrl,
  tls: tls.optional(),
});

const mirrorFlowSchema = z.strictObject({
  mirror: name,
  to: name,
  /** Schema in the target that all tables go to; by default each keeps its own. */
  schema: z.string().min(1).max(63).optional(),
  tables: z.array(tablePattern).min(1).optional(),
  /** `soft`: rows that go at the source stay in the target, and its column `waybill_deleted_at` says since when. */
  deletes: z.enum(['apply', 'soft', 'ignore']).default('apply'),
  truncate: z.enum(['apply', 'ignore']).default('apply'),
  /** `stop`: a table whose definition changes at the source is no longer written until it is read again. */
  schema_changes: z.enum(['follow', 'stop']).default('follow'),
  /** What becomes of a column in the target that the source dropped: its values, or the column too. */
  dropped_columns: z.enum(['keep', 'drop']).default('keep'),
  dropped_tables: z.enum(['keep', 'drop']).default('keep'),
  /** `keep`: the old name stays as it is, and the new one is loaded as a new table. */
  renamed_tables: z.enum(['keep', 'rename']).default('keep'),
  batch_bytes: size.prefault('16MB'),
  /** What becomes of 0000-00-00 and its like in a target that has no such dates (Postgres). */
  zero_dates: z.enum(['reject', 'null', 'epoch']).default('reject'),
  /** What a repair does with rows of the target that the source does not have. */
  extra_rows: z.enum(['report', 'delete']).default('report'),
});

const verifySchema = z.strictObject({
  /** How often both sides of every flow are compared; left out: only when `waybill verify` is run. */
  every: period.optional(),
  /** The share of time in which a comparison may keep one session of a database busy. */
  max_load: z.number().gt(0).max(1).default(0.5),
  /** How long a row must differ before it is looked at again. */
  grace: duration.prefault('2s'),
  /** Repair what a scheduled comparison finds. */
  repair: z.boolean().default(false),
});

/** As the Standard Webhooks write it: whsec_ and 24 to 64 bytes in base64. */
const webhookSecret = z.string().refine(isWebhookSecret, 'must be whsec_ followed by 24 to 64 bytes in base64');

const webhookSchema = z.strictObject({
  url: z.string().refine(isWebUrl, 'must be an http or https url'),
  secret: webhookSecret,
  /** The one before, while the receiver changes over: messages are signed with both. */
  previous_secret: webhookSecret.optional(),
  /** The least severity that is sent. */
  severity: z.enum(['warning', 'critical']).default('warning'),
});

const monitoringSchema = z.strictObject({
  /** Where alerts are sent, by names of your own. */
  webhooks: z.record(name, webhookSchema).default({}),
  /** How often a heartbeat is sent through each flow, and timed; left out: never. */
  heartbeat: period.optional(),
  verify: verifySchema.prefault({}),
  listen: z
    .string()
    .regex(/^.+:\d{1,5}$/, 'must be host:port')
    .default('127.0.0.1:9464'),
  /** Whoever has it may act from the console; left out: nobody may. */
  token: z
    .string()
    .regex(/^[\x21-\x7e]{16,}$/, 'must be at least 16 printable characters without spaces')
    .optional(),
  /** Names by which the console is reached, beside addresses and localhost. */
  hosts: z.array(z.string().min(1)).default([]),
  /** Columns whose values the console never shows, beside those that a source hides and those named like secrets. */
  hide: z.array(z.string().regex(/^[^.]+\..+\.[^.]+$/, 'must have the form schema.table.column')).default([]),
});

/** Its user and password are taken apart when something is sent: that must be possible. */
function isWebUrl(text: string): boolean {
  if (!/^https?:\/\//.test(text) || !URL.canParse(text)) return false;
  const { username, password } = new URL(text);
  return !/%(?![0-9a-f]{2})/i.test(username + password);
}

function isWebhookSecret(text: string): boolean {
  if (!/^whsec_[A-Za-z0-9+/]+={0,2}$/.test(text)) return false;
  const bytes = Buffer.from(text.slice('whsec_'.length), 'base64').length;
  return bytes >= 24 && bytes <= 64;
}

export const configSchema = z.strictObject({
  version: z.literal(1),
  nats: natsSchema.prefault({}),
  sources: z.record(name, sourceSchema).default({}),
  targets: z.record(name, targetSchema).default({}),
  flows: z.record(name, z.union([mirrorFlowSchema, canonicalFlowSchema, outboundFlowSchema])).default({}),
  monitoring: monitoringSchema.prefault({}),
});

type ParsedConfig = z.infer<typeof configSchema>;
/** The configuration. The file has all flows in one place; here they are apart by their kind. */
export type Config = Omit<ParsedConfig, 'flows'> & {
  readonly flows: Readonly<Record<string, FlowConfig>>;
  readonly canonicalFlows: Readonly<Record<string, CanonicalFlowConfig>>;
  readonly outboundFlows: Readonly<Record<string, OutboundFlowConfig>>;
};
export type NatsConfig = Config['nats'];
export type SourceConfig = z.infer<typeof sourceSchema>;
export type PostgresSourceConfig = Extract<SourceConfig, { kind: 'postgres' }>;
export type MysqlSourceConfig = Exclude<SourceConfig, { kind: 'postgres' }>;
export type TargetConfig = z.infer<typeof targetSchema>;
/** A mirror flow; of any flow, what writing to the target needs to know. */
export type FlowConfig = z.infer<typeof mirrorFlowSchema>;
export type WebhookConfig = z.infer<typeof webhookSchema>;
export type TlsConfig = z.infer<typeof tls>;
export type { Environment } from './config-text.ts';

/** JSON Schema of the configuration, for editors: of the file, where any secret may be given as `…_file` instead. */
export function configJsonSchema(): unknown {
  return withSecretFiles(
    z.toJSONSchema(configSchema, { io: 'input', unrepresentable: 'any' }) as Record<string, unknown>,
  );
}

/** Reads and checks a configuration file. Throws `config_invalid` with one line for every problem. */
export function loadConfig(path: string, environment: Environment): Config {
  let text: string;
  try {
    text = readFileSync(path, 'utf8');
  } catch (cause) {
    throw new ReplicationError('config_invalid', `cannot read ${path}; name the file with --config or WAYBILL_CONFIG`, {
      cause,
    });
  }
  const config = parseConfig(text, environment, path);
  const canonicalFlows = Object.entries(config.canonicalFlows).map(([flow, settings]) => {
    const from = Object.entries(settings.from).map(([source, choice]) => [
      source,
      choice.map === undefined ? choice : { ...choice, map: resolve(dirname(path), choice.map) },
    ]);
    return [flow, { ...settings, from: Object.fromEntries(from) as CanonicalFlowConfig['from'] }];
  });
  const outboundFlows = Object.entries(config.outboundFlows).map(([flow, settings]) => [
    flow,
    { ...settings, map: resolve(dirname(path), settings.map) },
  ]);
  return {
    ...config,
    canonicalFlows: Object.fromEntries(canonicalFlows) as Config['canonicalFlows'],
    outboundFlows: Object.fromEntries(outboundFlows) as Config['outboundFlows'],
  };
}

/** `loadConfig` for a text that is already there; `place` names it in errors. */
export function parseConfig(text: string, environment: Environment, place = 'configuration'): Config {
  const problems: string[] = [];
  const raw = readYaml(text, place);
  const expanded = expand(raw, '', environment, problems);
  const result = configSchema.safeParse(expanded);
  let config: Config | undefined;
  if (!result.success) for (const issue of result.error.issues) problems.push(...describeIssue(issue, expanded));
  else problems.push(...crossCheck((config = divideFlows(result.data))));
  if (problems.length > 0) throw problemsError('config_invalid', place, problems);
  return config!;
}

function divideFlows({ flows, ...rest }: ParsedConfig): Config {
  const mirrors: Record<string, FlowConfig> = {};
  const canonicalFlows: Record<string, CanonicalFlowConfig> = {};
  const outboundFlows: Record<string, OutboundFlowConfig> = {};
  for (const [flow, settings] of Object.entries(flows))
    if ('canonical' in settings) canonicalFlows[flow] = settings;
    else if ('outbound' in settings) outboundFlows[flow] = settings;
    else mirrors[flow] = settings;
  return { ...rest, flows: mirrors, canonicalFlows, outboundFlows };
}

/** What writing records to a target needs to know: they come as the rows of one source. */
export function recordFlowSettings(flow: CanonicalFlowConfig | OutboundFlowConfig): FlowConfig {
  return {
    mirror: CANONICAL_SOURCE,
    to: flow.to,
    ...('schema' in flow ? { schema: flow.schema } : {}),
    deletes: 'deletes' in flow ? flow.deletes : 'apply',
    truncate: 'apply',
    schema_changes: 'follow',
    dropped_columns: 'keep',
    dropped_tables: 'keep',
    renamed_tables: 'keep',
    batch_bytes: flow.batch_bytes,
    zero_dates: 'reject',
    extra_rows: 'extra_rows' in flow ? flow.extra_rows : 'report',
  };
}

/** The target of a flow of any kind, and what writing to it needs to know; undefined when there is no such flow. */
export function flowSettings(config: Config, flow: string): FlowConfig | undefined {
  const records = config.canonicalFlows[flow] ?? config.outboundFlows[flow];
  return records === undefined ? config.flows[flow] : recordFlowSettings(records);
}

/** The canonical flow whose records a flow brings to its target; undefined for a mirror. */
export function makerOf(config: Config, flow: string): string | undefined {
  if (config.canonicalFlows[flow] !== undefined) return flow;
  const entity = config.outboundFlows[flow]?.outbound;
  return Object.keys(config.canonicalFlows).find((name) => config.canonicalFlows[name]!.canonical === entity);
}

/** The sources from which a flow brings something to its target: of records those of the flow that makes them. */
export function sourcesOf(config: Config, flow: string): string[] {
  const maker = makerOf(config, flow);
  return maker === undefined ? [config.flows[flow]!.mirror] : Object.keys(config.canonicalFlows[maker]!.from);
}

/** Names of all flows. */
export function flowNames(config: Config): string[] {
  return [config.flows, config.canonicalFlows, config.outboundFlows].flatMap((flows) => Object.keys(flows));
}

function describeIssue(issue: z.core.$ZodIssue, root: unknown): string[] {
  const at = issue.path.map(String).join('.');
  if (issue.code === 'invalid_union' && issue.path.length === 2 && issue.path[0] === 'flows') {
    // Which kind of flow is meant is told by the word that it begins with.
    const meant = issue.errors[KINDS_OF_FLOW.indexOf(kindOfFlow(valueAt(issue.path, root)))]!;
    return meant.flatMap((inner) => describeIssue({ ...inner, path: [...issue.path, ...inner.path] }, root));
  }
  if (issue.code === 'unrecognized_keys') {
    const known = knownKeysAt(issue.path, root);
    return issue.keys.map((key) => {
      const near = nearest(key, known);
      const hint = near === undefined ? '' : ` (did you mean "${near}"?)`;
      return `${at === '' ? key : `${at}.${key}`}: unknown key${hint}`;
    });
  }
  if (issue.code === 'invalid_key') return [`${at}: ${issue.issues[0]?.message ?? 'invalid name'}`];
  return [`${at === '' ? 'the file' : at}: ${issue.message}${root === null ? ' (it is empty)' : ''}`];
}

function valueAt(path: readonly PropertyKey[], root: unknown): unknown {
  return path.reduce((value, part) => (value as Record<PropertyKey, unknown> | undefined)?.[part], root);
}

/** The words by which flows are told apart, in the order of their schemas. */
const KINDS_OF_FLOW = ['mirror', 'canonical', 'outbound'] as const;

function kindOfFlow(flow: unknown): (typeof KINDS_OF_FLOW)[number] {
  if (typeof flow !== 'object' || flow === null) return 'mirror';
  return KINDS_OF_FLOW.find((kind) => kind in flow) ?? 'mirror';
}

interface SchemaNode {
  readonly properties?: Readonly<Record<string, SchemaNode>>;
  readonly additionalProperties?: SchemaNode;
  readonly oneOf?: readonly SchemaNode[];
  readonly anyOf?: readonly SchemaNode[];
  readonly const?: unknown;
}

function knownKeysAt(path: readonly PropertyKey[], root: unknown): string[] {
  let node = configJsonSchema() as SchemaNode | undefined;
  let value = root;
  for (const part of path) {
    node = node?.properties?.[String(part)] ?? node?.additionalProperties;
    value = (value as Record<PropertyKey, unknown> | undefined)?.[part];
    const { kind } = (value ?? {}) as { kind?: unknown };
    if (node?.oneOf !== undefined) node = node.oneOf.find((variant) => variant.properties?.['kind']?.const === kind);
    if (node?.anyOf !== undefined) {
      const word = kindOfFlow(value);
      node = node.anyOf.find((variant) => variant.properties?.[word] !== undefined);
    }
  }
  return Object.keys(node?.properties ?? {});
}

function crossCheck(config: Config): string[] {
  const problems: string[] = [];
  const slots = new Map<string, string>();
  for (const [source, settings] of Object.entries(config.sources)) {
    compileTablePatterns(settings.tables);
    ColumnRules.compile(settings.columns);
    const servers = serverUrls(settings.url);
    if (settings.kind !== 'postgres') {
      if (servers.some((url) => serverName(url) === '' || !URL.canParse(url)))
        problems.push(
          `sources.${source}.url: must be mysql://user:password@host:port/database, hosts separated by commas`,
        );
      continue;
    }
    if (servers.length > 1)
      problems.push(`sources.${source}.url: names several servers, which only sources of MySQL and MariaDB may do`);
    const slot = `${settings.url} ${slotName(source, settings, config.nats.prefix)}`;
    const other = slots.get(slot);
    if (other !== undefined) problems.push(`sources.${source}: uses the same database and slot as sources.${other}`);
    slots.set(slot, source);
  }
  for (const [flow, settings] of Object.entries(config.flows)) {
    if (config.sources[settings.mirror] === undefined)
      problems.push(
        `flows.${flow}.mirror: there is no source "${settings.mirror}"${hint(settings.mirror, config.sources)}`,
      );
    if (config.targets[settings.to] === undefined)
      problems.push(`flows.${flow}.to: there is no target "${settings.to}"${hint(settings.to, config.targets)}`);
  }
  const makers = new Map<string, string>();
  for (const [flow, settings] of Object.entries(config.canonicalFlows)) {
    const at = `flows.${flow}`;
    const sources = Object.keys(settings.from);
    for (const source of sources)
      if (config.sources[source] === undefined)
        problems.push(`${at}.from.${source}: there is no source "${source}"${hint(source, config.sources)}`);
    if (config.targets[settings.to] === undefined)
      problems.push(`${at}.to: there is no target "${settings.to}"${hint(settings.to, config.targets)}`);
    const other = makers.get(settings.canonical);
    if (other !== undefined)
      problems.push(
        `${at}.canonical: ${settings.canonical} is made by flow ${other} already; one flow makes an entity, from as many sources as there are`,
      );
    makers.set(settings.canonical, flow);
  }
  for (const [flow, settings] of Object.entries(config.outboundFlows)) {
    const at = `flows.${flow}`;
    if (config.targets[settings.to] === undefined)
      problems.push(`${at}.to: there is no target "${settings.to}"${hint(settings.to, config.targets)}`);
    if (!makers.has(settings.outbound))
      problems.push(
        `${at}.outbound: no flow makes ${settings.outbound}${hint(settings.outbound, Object.fromEntries(makers))}`,
      );
  }
  return problems;
}

function hint(word: string, record: Readonly<Record<string, unknown>>): string {
  const near = nearest(word, Object.keys(record));
  return near === undefined ? '' : ` (did you mean "${near}"?)`;
}

/** The replication slot of a source: as configured, else `<prefix>_<source>`. */
export function slotName(source: string, settings: PostgresSourceConfig, prefix: string): string {
  return settings.slot ?? `${prefix}_${source}`;
}

/**
 * What a capture and its comparisons put in front of their messages in the log. By the slot, which is one capture's
 * alone on its server: another installation that calls its source the same must not take these marks for its own.
 */
export function markPrefix(source: string, settings: PostgresSourceConfig, prefix: string): string {
  return `waybill:${slotName(source, settings, prefix)}`;
}

/** The publication of a source: as configured, else `<prefix>_<source>`. */
export function publicationName(source: string, settings: PostgresSourceConfig, prefix: string): string {
  return settings.publication ?? `${prefix}_${source}`;
}
