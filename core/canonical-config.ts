/**
 * Flows of canonical records, as the configuration writes them. What entities, fields and groups there are is known to
 * transform/ alone, which checks their names when a flow is loaded.
 */
import { z } from 'zod';
import { durationSchema, nameSchema, sizeSchema } from './config-values.ts';

/** How a source becomes records: a mapping that comes with Waybill, or a file of one's own. */
const mappingSchema = z
  .strictObject({
    pack: z.string().min(1).optional(),
    map: z.string().min(1).optional(),
    /** The zone of times without one, which belongs to an installation and not to a pack: an IANA name. */
    zone: z.string().min(1).optional(),
    /** What the mapping leaves to the installation (its own `settings`), by name. */
    settings: z.record(nameSchema, z.string()).optional(),
  })
  .refine((given) => (given.pack === undefined) !== (given.map === undefined), 'must have either a pack or a map');

const fallback = z.strictObject({ source: nameSchema, stale_after: durationSchema });
const scopedOwner = z.strictObject({
  source: nameSchema,
  /** Values of key fields for which it is the owner; `*` at the end stands for any characters. */
  where: z.record(z.string(), z.union([z.string(), z.array(z.string()).min(1)])).optional(),
  fallback: z.array(fallback).default([]),
});
/** The owner, and who stands in for it in turn. */
const orderedOwners = z.tuple([nameSchema], fallback).transform(([source, ...rest]) => ({ source, fallback: rest }));
const merge = z.discriminatedUnion('merge', [
  z.strictObject({ merge: z.literal('lww'), skew: durationSchema.prefault('5m') }),
  z.strictObject({ merge: z.enum(['max', 'min', 'union']) }),
  z.strictObject({ merge: z.literal('rank'), order: z.array(z.string()).min(2) }),
  z.strictObject({ merge: z.literal('delta'), reset: nameSchema.optional() }),
]);
const ownerSchema = z.union(
  [nameSchema, orderedOwners, z.array(scopedOwner).min(1), scopedOwner, merge],
  'must be a source, an ordered list [source, {source, stale_after}], owners with "where", or {merge: …}',
);

const tierSchema = z.union(
  [
    z.literal('realtime'),
    z.strictObject({ every: durationSchema }),
    /** Without a zone, an IANA name, in UTC. */
    z.strictObject({ cron: z.string().min(1), zone: z.string().min(1).optional() }),
  ],
  'must be realtime, {every: 5m} or {cron: "0 2 * * *", zone: Europe/Berlin}',
);

/** Entities of which the same sources may tell, so that the invariants of stock can be held against them. */
export const EVIDENCE_ENTITIES = ['location', 'reservation', 'inventory_movement'] as const;
export type EvidenceEntity = (typeof EVIDENCE_ENTITIES)[number];

export const canonicalFlowSchema = z.strictObject({
  /** The entity. */
  canonical: nameSchema,
  from: z
    .record(nameSchema, mappingSchema)
    .refine((from) => Object.keys(from).length > 0, 'must name at least one source'),
  /** By field group, or a field of it. */
  owner: z.record(z.string(), ownerSchema).default({}),
  to: nameSchema,
  /** Schema in the target. */
  schema: z.string().min(1).max(63).default('canonical'),
  /** Whose records these are. */
  tenant: z.string().min(1).default('default'),
  /** When changes are passed on; by field group for a hybrid, `default` for the others. By default as the entity says. */
  delivery: z.union([tierSchema, z.record(z.string(), tierSchema)]).optional(),
  /** Of positions of stock: what else the mappings tell, against which the figures are held as they pass. */
  evidence: z.array(z.enum(EVIDENCE_ENTITIES)).default([]),
  /** Bytes that mappings and records may keep in memory. */
  state_bytes: sizeSchema.prefault('256MB'),
  frame_bytes: sizeSchema.prefault('512KB'),
  batch_bytes: sizeSchema.prefault('4MB'),
  deletes: z.enum(['apply', 'ignore']).default('apply'),
  /** Rows that no source has a record for: whether a repair deletes them. */
  extra_rows: z.enum(['report', 'delete']).default('report'),
  /** Each record as a message of its own, too, in a stream of NATS that keeps the newest of each. */
  fan_out: z.boolean().default(false),
  /** Views beside the tables (docs/visibility.md), in targets of kind postgres. */
  views: z.boolean().default(true),
});

/** Records out to the tables of a system that is there already. */
export const outboundFlowSchema = z.strictObject({
  /** The entity; a canonical flow makes its records. */
  outbound: nameSchema,
  /** The mapping file. */
  map: z.string().min(1),
  to: nameSchema,
  batch_bytes: sizeSchema.prefault('4MB'),
});

export type OutboundFlowConfig = z.infer<typeof outboundFlowSchema>;
export type CanonicalFlowConfig = z.infer<typeof canonicalFlowSchema>;
export type DeliveryTier = z.infer<typeof tierSchema>;
export type MappingChoice = z.infer<typeof mappingSchema>;

/** What the positions and the quarantine of a target name as the source of records. */
export const CANONICAL_SOURCE = 'canonical';
