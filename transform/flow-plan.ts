/** A canonical flow, compiled: its entity, the mappings of its sources, and who owns what. */
import { createHash } from 'node:crypto';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { CanonicalFlowConfig, MappingChoice } from '../core/canonical-config.ts';
import { nearest } from '../core/nearest.ts';
import { messageOf, problemsError, ReplicationError } from '../core/errors.ts';
import { ENTITIES, ENTITY_NAMES } from './canonical/catalog.ts';
import { inventoryPosition } from './canonical/entities-inventory.ts';
import type { Entity } from './canonical/entity.ts';
import { isTimeZone } from './canonical/timestamp.ts';
import { compileTiers, type Tiers } from './delivery-tiers.ts';
import { compileMapping, type MappingPlan } from './mapping/block-plan.ts';
import type { MappingFunction } from './mapping/evaluate.ts';
import { blockText } from './mapping/block-text.ts';
import { parseMapping, type Mapping } from './mapping/mapping-file.ts';
import { functionsPath, loadFunctions } from './mapping/mapping-functions.ts';
import { readMapping } from './mapping/yaml-file.ts';
import { compileOwnership, type Ownership } from './ownership/ownership.ts';

/** Rises when the same mapping gives other records than before, or holds other ones: then all are made anew. */
const LOGIC_VERSION = 4;

export interface SourcePlan {
  readonly name: string;
  readonly mapping: Mapping;
  readonly functions: ReadonlyMap<string, MappingFunction>;
}

export interface FlowPlan {
  readonly name: string;
  readonly settings: CanonicalFlowConfig;
  readonly entity: Entity;
  readonly sources: readonly SourcePlan[];
  readonly ownership: Ownership;
  readonly tiers: Tiers;
  /** Changes with everything that decides what records the same frames give. */
  readonly fingerprint: string;
}

/** Loads what a flow needs. Throws `config_invalid` or `mapping_invalid`, with all problems of their kind. */
export async function loadFlowPlan(name: string, settings: CanonicalFlowConfig): Promise<FlowPlan> {
  const at = `flows.${name}`;
  const entity = ENTITIES.get(settings.canonical);
  if (entity === undefined)
    throw invalid([
      `${at}.canonical: there is no entity "${settings.canonical}"${hint(settings.canonical, ENTITY_NAMES)}`,
    ]);
  const hash = createHash('sha256');
  const beside: ReadonlySet<string> = new Set(settings.evidence);
  const sources: SourcePlan[] = [];
  const supplied = new Map<string, ReadonlySet<string>>();
  const problems: string[] = [];
  for (const [source, choice] of Object.entries(settings.from)) {
    const place = mappingPlace(`${at}.from.${source}`, choice);
    if (choice.zone !== undefined && !isTimeZone(choice.zone))
      throw invalid([`${at}.from.${source}.zone: is not a time zone that is known`]);
    // Each text is read before what is made of it: one that changes meanwhile shows at the next start at the latest.
    const text = readMapping(place);
    const mapping = parseMapping(text, place, { zone: choice.zone, settings: choice.settings });
    const code = functionsPath(mapping);
    const codeText = code === undefined ? '' : readText(code);
    const functions = await loadFunctions(mapping);
    const blocks = mapping.blocks.filter((block) => block.entity === entity);
    if (blocks.length === 0) problems.push(`${at}.from.${source}: ${place} has nothing for ${entity.name}`);
    const fields = blocks.flatMap((block) => block.fields.map((field) => entity.index.get(field.name)!));
    supplied.set(source, new Set(fields.map((field) => entity.fields[field]!.group).filter((group) => group !== '')));
    sources.push({ name: source, mapping, functions });
    // What stands in the file beside the blocks that are used decides nothing.
    const used = mapping.blocks.filter((block) => block.entity === entity || beside.has(block.entity.name));
    hash.update(JSON.stringify([source, mapping.zone, mapping.zeroDates, codeText, ...used.map(blockText)]));
  }
  const evidence = evidenceProblems(settings, entity, sources);
  const { ownership, problems: owning } = compileOwnership(entity, settings.owner, supplied);
  const { tiers, problems: delivering } = compileTiers(entity, settings.delivery);
  problems.push(...[...owning, ...delivering, ...evidence].map((problem) => `${at}.${problem}`));
  if (problems.length === 0) problems.push(...lackingProblems(at, entity, sources, ownership));
  if (problems.length > 0) throw invalid(problems);
  const { owner, tenant, delivery } = settings;
  hash.update(JSON.stringify([LOGIC_VERSION, entity.name, entity.version, owner, tenant, delivery]));
  if (settings.evidence.length > 0) hash.update(JSON.stringify(settings.evidence.toSorted()));
  return { name, settings, entity, sources, ownership, tiers, fingerprint: hash.digest('hex').slice(0, 16) };
}

/** A mapping compiled for a flow. It holds the rows of its tables, so that every run needs one of its own. */
export function compileSource(plan: FlowPlan, source: SourcePlan): MappingPlan {
  return compileMapping(source.mapping, source.functions, plan.entity.name, plan.settings.evidence);
}

/** Whether several blocks may make one record. */
export function isShared({ sources, entity }: FlowPlan): boolean {
  return sources.length > 1 || sources[0]!.mapping.blocks.filter((block) => block.entity === entity).length > 1;
}

/** Fields that a record must have and that it can have from nobody: none would ever be there. */
function lackingProblems(
  at: string,
  entity: Entity,
  sources: readonly SourcePlan[],
  { rules }: Ownership,
): readonly string[] {
  const supplies = (source: string, field: string): boolean =>
    sources.some(
      ({ name, mapping }) =>
        name === source &&
        mapping.blocks.some((block) => block.entity === entity && block.fields.some((each) => each.name === field)),
    );
  return entity.fields
    .filter(({ nullable, key, derived }) => !nullable && !key && !derived)
    .filter(({ name, group }) => {
      const rule = rules.get(group);
      const counting =
        rule?.kind === 'owner'
          ? rule.owners.flatMap(({ source, fallback }) => [source, ...fallback.map((each) => each.source)])
          : rule === undefined
            ? []
            : sources.map((source) => source.name);
      return !counting.some((source) => supplies(source, name));
    })
    .map(({ name }) => `${at}: nobody whose word counts supplies ${name}, without which no ${entity.name} is there`);
}

/** What stands against the entities that a flow is to be held against. */
function evidenceProblems(
  { evidence }: CanonicalFlowConfig,
  entity: Entity,
  sources: readonly SourcePlan[],
): readonly string[] {
  if (evidence.length > 0 && entity.name !== inventoryPosition.name)
    return [`evidence: only a flow of ${inventoryPosition.name} is held against others`];
  return evidence
    .filter((name) => !sources.some(({ mapping }) => mapping.blocks.some((block) => block.entity.name === name)))
    .map((name) => `evidence: no mapping of the flow has anything for ${name}`);
}

const PACKS = join(import.meta.dirname, 'packs');

function mappingPlace(at: string, choice: MappingChoice): string {
  if (choice.map !== undefined) return choice.map;
  const known = readdirSync(PACKS);
  if (!known.includes(choice.pack!))
    throw invalid([`${at}.pack: there is no pack "${choice.pack}"${hint(choice.pack!, known)}`]);
  return join(PACKS, choice.pack!, 'mapping.yaml');
}

function readText(path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch (cause) {
    throw new ReplicationError('mapping_invalid', `cannot read ${path}: ${messageOf(cause)}`, { cause });
  }
}

function invalid(problems: readonly string[]): ReplicationError {
  return problemsError('config_invalid', 'the configuration', problems);
}

function hint(word: string, known: readonly string[]): string {
  const near = nearest(word, known);
  return near === undefined ? '' : ` (did you mean "${near}"?)`;
}
