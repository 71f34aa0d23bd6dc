/**
 * What a saved state holds of rows, apart from how records are made of them. Another plan of the flow finds by it what it can
 * use: the rows of a source, where they have every column that it reads, read in the same way.
 */
import { createHash } from 'node:crypto';
import type { FlowState } from './flow-state.ts';
import type { CompiledBlock, TablePlan } from './mapping/block-plan.ts';
import { blockText } from './mapping/block-text.ts';
import type { MappingEngine } from './mapping/engine.ts';

interface KeptTable {
  readonly names: readonly string[];
  readonly slots: readonly (readonly [columns: readonly string[], raw: boolean])[];
  /** Its rows are let go once they have been told of. */
  readonly events: boolean;
}

interface KeptBlock {
  readonly entity: string;
  readonly from: readonly string[];
  /** Hash of what it says. */
  readonly says: string;
  /** Names of the fields of which rows have cells. */
  readonly cells: readonly string[];
}

interface KeptSource {
  readonly name: string;
  readonly zone: string | null;
  readonly zeroDates: string;
  readonly tables: readonly KeptTable[];
  readonly blocks: readonly KeptBlock[];
}

/** Sources, tables and blocks in the order in which the lines of the state number them. */
export interface Layout {
  /** The entity, with its version. */
  readonly entity: string;
  readonly sources: readonly KeptSource[];
}

/** What of a source in a saved state another plan uses. Numbers of the state lead to those of the plan. */
export interface KeptPart {
  readonly source: string;
  readonly tables: ReadonlyMap<number, { readonly table: number; readonly slots: readonly number[] }>;
  readonly blocks: ReadonlyMap<number, number>;
}

export function layoutOf({ plan: { entity }, sources }: FlowState): Layout {
  return {
    entity: `${entity.name} ${entity.version}`,
    sources: sources.map(({ name, engine }) => ({ name, ...readingOf(engine) })),
  };
}

function readingOf({ plan: { mapping, tables, blocks, events } }: MappingEngine): Omit<KeptSource, 'name'> {
  return {
    zone: mapping.zone ?? null,
    zeroDates: mapping.zeroDates,
    tables: tables.map((table) => ({ ...keptTable(table), events: events.has(table) })),
    blocks: blocks.map(keptBlock),
  };
}

function keptTable({ names, slots }: TablePlan): Omit<KeptTable, 'events'> {
  return { names, slots: slots.map(({ columns, raw }) => [columns, raw] as const) };
}

function keptBlock({ block, fields }: CompiledBlock): KeptBlock {
  const { entity, tables: from } = block;
  return {
    entity: entity.name,
    from,
    says: createHash('sha256').update(blockText(block)).digest('hex').slice(0, 16),
    cells: fields.map(({ field }) => entity.fields[field]!.name),
  };
}

/**
 * What a state of this layout has for another plan of its flow, by the number of the source in the layout. A source that reads
 * more than is kept of it, or otherwise, is not among them.
 */
export function keptParts(layout: Layout, wanted: Layout): Map<number, KeptPart> {
  const parts = new Map<number, KeptPart>();
  if (layout.entity !== wanted.entity) return parts;
  for (const source of wanted.sources) {
    const number = layout.sources.findIndex(({ name }) => name === source.name);
    const kept = layout.sources[number];
    if (kept === undefined || kept.zone !== source.zone || kept.zeroDates !== source.zeroDates) continue;
    const tables = keptTables(kept.tables, source.tables);
    if (tables !== undefined)
      parts.set(number, { source: source.name, tables, blocks: keptBlocks(kept.blocks, source.blocks) });
  }
  return parts;
}

function keptTables(kept: readonly KeptTable[], wanted: readonly KeptTable[]): KeptPart['tables'] | undefined {
  const tables = new Map<number, { table: number; slots: readonly number[] }>();
  for (const [table, { names, slots, events }] of wanted.entries()) {
    const number = kept.findIndex((each) => isSame(each.names, names));
    const there = kept[number];
    if (there === undefined || there.events !== events) return undefined;
    const numbers = slots.map((slot) => there.slots.findIndex((each) => isSame(each, slot)));
    if (numbers.includes(-1)) return undefined;
    tables.set(number, { table, slots: numbers });
  }
  return tables;
}

/** First those that say the same, then, in their order, those that make the same entity of the same table. */
function keptBlocks(kept: readonly KeptBlock[], wanted: readonly KeptBlock[]): Map<number, number> {
  const blocks = new Map<number, number>();
  const taken = new Set<number>();
  const pair = (fits: (one: KeptBlock, other: KeptBlock) => boolean): void => {
    for (const [number, one] of kept.entries()) {
      if (blocks.has(number)) continue;
      const other = wanted.findIndex((each, index) => !taken.has(index) && fits(one, each));
      if (other < 0) continue;
      blocks.set(number, other);
      taken.add(other);
    }
  };
  pair((one, other) => one.says === other.says);
  pair((one, other) => one.entity === other.entity && isSame(one.from, other.from));
  return blocks;
}

function isSame(a: unknown, b: unknown): boolean {
  return JSON.stringify(a) === JSON.stringify(b);
}
