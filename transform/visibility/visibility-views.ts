/**
 * Views beside the canonical tables of a Postgres target, for the questions that people ask of them. docs/visibility.md
 * says what each column means. A later version may only add columns at the end, so that `CREATE OR REPLACE` keeps grants.
 */
import { createHash } from 'node:crypto';
import { ENTITIES } from '../canonical/catalog.ts';
import type { Entity } from '../canonical/entity.ts';
import { postgresTableDdl } from '../canonical/postgres-ddl.ts';
import { availableToPromise, channelTables, oversoldItems, sellableByChannel } from './stock-views.ts';
import { crossDockCandidates, replenishmentSignals } from './supply-views.ts';
import { shipmentRisks } from './transport-views.ts';

/** A view: what makes it, what it reads, and what it is for. */
export interface VisibilityView {
  readonly name: string;
  readonly description: string;
  /** The statement that makes or replaces it. */
  readonly sql: string;
  /** Entities whose tables it reads. */
  readonly entities: readonly string[];
  /** Changes whenever the statement does: part of the comment that the view gets. */
  readonly fingerprint: string;
}

/** The body of a view; tables and other views are named through `of`. */
export interface ViewDefinition {
  readonly name: string;
  readonly description: string;
  readonly entities: readonly string[];
  readonly body: (of: (name: string) => string) => string;
}

const DEFINITIONS: readonly ViewDefinition[] = [
  availableToPromise,
  oversoldItems,
  shipmentRisks,
  crossDockCandidates,
  replenishmentSignals,
  sellableByChannel,
];

/** The views of a schema, in the order in which they are made. */
export function visibilityViews(schema: string): VisibilityView[] {
  const of = (name: string): string => `${quote(schema)}.${quote(name)}`;
  return DEFINITIONS.map(({ name, description, entities, body }) => {
    const sql = `CREATE OR REPLACE VIEW ${of(name)} AS\n${body(of).trim()}`;
    const fingerprint = createHash('sha256').update(sql).digest('hex').slice(0, 12);
    return { name, description, entities, sql, fingerprint };
  });
}

/** The comment by which a view is known to be the one of this version. */
export function viewComment({ description, fingerprint }: VisibilityView): string {
  return `${description} (Waybill ${fingerprint})`;
}

/** Statements that make the tables which the views read, where no flow has made them yet. */
export function visibilityTables(schema: string): string[] {
  const names = new Set(DEFINITIONS.flatMap((view) => view.entities));
  return [
    ...[...names].flatMap((name) => postgresTableDdl(ENTITIES.get(name) as Entity, schema)),
    ...channelTables((name) => `${quote(schema)}.${quote(name)}`),
  ];
}

function quote(name: string): string {
  return `"${name.replaceAll('"', '""')}"`;
}
