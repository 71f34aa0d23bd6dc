/**
 * Begins a state with the rows of one that another plan of the flow saved, and works out anew what they make. What sources
 * said, and when, stays where it is as it was: the frames that told it may have expired.
 */
import { ReplicationError } from '../core/errors.ts';
import { formatPosition } from '../core/position.ts';
import type { SourcePlace } from './checkpoint.ts';
import type { FlowState } from './flow-state.ts';
import type { KeptPart, Layout } from './kept-layout.ts';
import type { Cell } from './mapping/cell.ts';
import type { CompiledBlock } from './mapping/block-plan.ts';
import type { ContributionChange } from './mapping/contribution-change.ts';
import { restoredCell } from './mapping/saved-row.ts';
import { beforeEarly, suppliesAny, type Contribution } from './ownership/contribution.ts';
import type { HeldGroup } from './ownership/resolved.ts';
import { RecordsReader, type RestoredRecord } from './saved-records.ts';
import type { Line } from './saved-state.ts';
import type { SourceState } from './source-state.ts';
import type { StockEvidence } from './stock-evidence.ts';

/** The base of what is held of a contribution: source, number of the block, key. */
const CONTRIBUTION = /^([^#]+)#(\d+)#/;

export class KeptRows {
  readonly #state: FlowState;
  readonly #layout: Layout;
  readonly #parts: ReadonlyMap<number, KeptPart>;
  readonly #records: RecordsReader;
  /** What was held, under the bases that it has now. */
  readonly #held = new Map<string, readonly HeldGroup[]>();
  readonly #cells: Cell[] = [];
  #lines = 0;

  /** `parts` of `layout`, by the number of the source there; `state` is new, with the clock of the saved one. */
  constructor(state: FlowState, layout: Layout, parts: ReadonlyMap<number, KeptPart>) {
    this.#state = state;
    this.#layout = layout;
    this.#parts = parts;
    this.#records = new RecordsReader(state.plan.entity);
  }

  /** Takes a line. Throws `frame_unreadable` when it is damaged, and `mapping_invalid` when a table does not fit. */
  take(text: string): void {
    this.#lines += 1;
    let line: Line;
    try {
      line = JSON.parse(text) as Line;
    } catch (cause) {
      throw new ReplicationError('frame_unreadable', `line ${this.#lines} of the saved state is damaged`, { cause });
    }
    this.#take(line);
  }

  #take(line: Line): void {
    const { resolver, evidence } = this.#state;
    switch (line[0]) {
      case 'table':
        this.#kept(line[1])?.source.engine.restoreTable(line[2]);
        return;
      case 'scanned': {
        const kept = this.#kept(line[1]);
        if (kept === undefined) return;
        kept.source.engine.restoreScanned(line[2].flatMap((table) => kept.part.tables.get(table)?.table ?? []));
        kept.source.reachedUs = line[3];
        return;
      }
      case 'rows': {
        const [, source, table, cells, rows] = line;
        const kept = this.#kept(source);
        const used = kept?.part.tables.get(table);
        if (kept === undefined || used === undefined) return;
        const { store } = kept.source.engine.plan.tables[used.table]!;
        for (let at = 0; at < rows.length; at += cells + 1) {
          for (const [slot, saved] of used.slots.entries()) this.#cells[slot] = restoredCell(rows[at + 1 + saved]!);
          store.add(rows[at] as string, this.#cells.slice(0, used.slots.length));
        }
        return;
      }
      case 'served': {
        const [, source, number, row, record, cells] = line;
        const kept = this.#kept(source);
        const index = kept?.part.blocks.get(number);
        if (kept === undefined || index === undefined) return;
        const { cells: names } = this.#layout.sources[source]!.blocks[number]!;
        const { block, fields } = kept.source.engine.plan.blocks[index]!;
        const served = fields.map(({ field }) => {
          const cell = cells[names.indexOf(block.entity.fields[field]!.name)] ?? 0;
          return cell === 0 ? undefined : restoredCell(cell);
        });
        kept.source.engine.blocks[index]!.restoreServed(row, record, served);
        return;
      }
      case 'records':
        this.#records.read(line, (record) => this.#record(record));
        return;
      case 'hold': {
        const [, source, number] = CONTRIBUTION.exec(line[1]) ?? [];
        const index = [...this.#parts.values()].find((part) => part.source === source)?.blocks.get(Number(number));
        if (index !== undefined) this.#held.set(line[1].replace(`#${number!}#`, `#${index}#`), line[2]);
        return;
      }
      case 'clocks':
        resolver.restoreClocks(line[1]);
        return;
      case 'unexplained':
        evidence?.restoreUnexplained(line[1], line[2]);
    }
  }

  /** A source of the saved state whose rows are used. */
  #kept(number: number): { part: KeptPart; source: SourceState } | undefined {
    const part = this.#parts.get(number);
    if (part === undefined) return undefined;
    return { part, source: this.#state.sources.find(({ name }) => name === part.source)! };
  }

  #record(record: RestoredRecord): void {
    const { sources, resolver } = this.#state;
    const contributions = record.contributions.flatMap((said): Contribution[] => {
      const part = [...this.#parts.values()].find(({ source }) => source === said.source);
      const index = part?.blocks.get(said.index);
      if (part === undefined || index === undefined) return [];
      const { engine } = sources.find(({ name }) => name === part.source)!;
      const kept = supplied(engine.plan.blocks[index]!, { ...said, index });
      engine.blocks[index]!.restoreRecord(record.key, kept.values);
      return [kept];
    });
    contributions.sort((a, b) => (a.source === b.source ? a.index - b.index : 0));
    if (contributions.length === 0 && record.counters === undefined) return;
    resolver.restoreEntry({ ...record, contributions }, this.#state.clockUs);
  }

  /**
   * All lines have been taken: what the rows make is worked out, and all records. Sources stand at their `places` in the saved
   * state. Stops now and then, for others to have their turn.
   */
  *made(places: ReadonlyMap<string, SourcePlace>): Generator<void> {
    const { resolver, evidence, plan, sources, clockUs } = this.#state;
    const told: [source: number, changes: ContributionChange[]][] = [];
    for (const { source: name } of this.#parts.values()) {
      const number = sources.findIndex((source) => source.name === name);
      const source = sources[number]!;
      const place = { position: formatPosition(places.get(name)!.position), timeUs: source.reachedUs };
      const changes: ContributionChange[] = [];
      yield* source.engine.restate(clockUs, place, changes);
      resolver.restate(
        name,
        changes.filter(({ block }) => block.block.entity === plan.entity),
      );
      told.push([number, changes.filter(({ block }) => block.block.entity !== plan.entity)]);
    }
    yield* resolver.resolveAll(clockUs);
    this.#keepHeld();
    if (evidence !== undefined) this.#tell(evidence, told);
  }

  /** Brings back what sources tell beside the records; of what happened, and could not be mapped before, it is told now. */
  #tell(evidence: StockEvidence, told: readonly (readonly [source: number, changes: ContributionChange[]])[]): void {
    const { sources, resolver } = this.#state;
    const isEvent =
      (source: number) =>
      (block: CompiledBlock): boolean =>
        sources[source]!.engine.plan.events.has(block.inputs[0]!.table);
    for (const [source, changes] of told)
      for (const { block, index, key, values } of changes)
        if (values !== undefined && !isEvent(source)(block))
          evidence.restoreSaying({ entity: block.block.entity.name, key, source, block: index, values });
    evidence.restored(resolver.current());
    const isWhole = this.#state.noteWhole();
    for (const [source, changes] of told) {
      const happened = changes.filter(({ block }) => isEvent(source)(block));
      evidence.observe([], source, happened, isEvent(source), isWhole);
    }
  }

  /** What goes on being held is held since then, and the row that was kept of it is still that. */
  #keepHeld(): void {
    const { held } = this.#state.resolver;
    for (const [base, groups] of held.byBase()) {
      const before = this.#held.get(base);
      if (before === undefined) continue;
      held.set(
        base,
        groups.map((group) => {
          const was = before.find((each) => each.group === group.group);
          if (was === undefined) return group;
          const { lineage, content } = was;
          return { ...group, lineage, ...(content === undefined ? {} : { content }) };
        }),
      );
    }
    held.takeChanges();
  }
}

/** A contribution without what its block does not supply any more. */
function supplied({ block, fields }: CompiledBlock, said: Contribution): Contribution {
  const { entity } = block;
  const still = new Set([...fields.map(({ field }) => field), ...entity.keyIndexes]);
  const values = said.values.map((value, field) => (still.has(field) ? value : undefined));
  const lineage = said.lineage.slice();
  const claims = said.claims === undefined ? undefined : new Map(said.claims);
  for (const [group, indexes] of [...entity.groupIndexes.values()].entries()) {
    if (suppliesAny(values, indexes)) continue;
    lineage[group] = undefined;
    claims?.delete(group);
    claims?.delete(beforeEarly(group));
  }
  return { ...said, values, lineage, claims };
}
