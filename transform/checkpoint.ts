/**
 * How much of each source a stream of records holds. It stands in the header of the stream's last message, so that no
 * second store can disagree with the records: a transform that starts reads its sources again up to there in silence,
 * and goes on.
 */
import { ReplicationError } from '../core/errors.ts';
import { formatPosition, parsePosition, type Position } from '../core/position.ts';

/** A place in the stream of a source, between two transactions. */
export interface SourcePlace {
  readonly position: Position;
  /** Sequence of the frame in which the position lies; 0 before the first. */
  readonly seq: number;
}

export type Places = ReadonlyMap<string, SourcePlace>;

export interface Checkpoint {
  /** Fingerprint of the flow's plan; empty while all records are being written anew. */
  readonly plan: string;
  /** The time by which rows have expired, microseconds since 1970. */
  readonly clockUs: number;
  readonly sources: Places;
  /** By delayed tier: what the stream held when it was released last. */
  readonly tiers: ReadonlyMap<string, Release>;
  /** Of what is held, not all has been passed on. */
  readonly heldBehind: boolean;
  /** Which owners were silent, in the records that the stream holds; absent where that never changes. */
  readonly standing?: string;
}

/** Some of the records are of before an owner fell silent or came back, and some of after that. */
export const BETWEEN = 'between';

export interface Release {
  readonly clockUs: number;
  readonly sources: Places;
  readonly standing?: string;
}

interface CheckpointText {
  readonly v: number;
  readonly plan: string;
  readonly clock: number;
  readonly sources: Readonly<Record<string, readonly [position: string, seq: number]>>;
  readonly tiers?: Readonly<Record<string, Pick<CheckpointText, 'clock' | 'sources' | 'standing'>>>;
  readonly held?: 'behind';
  readonly standing?: string;
}

const VERSION = 1;

export function formatCheckpoint({ plan, clockUs, sources, tiers, heldBehind, standing }: Checkpoint): string {
  const released = [...tiers].map(([id, release]) => [
    id,
    { clock: release.clockUs, sources: formatPlaces(release.sources), ...standingOf(release) },
  ]);
  const text: CheckpointText = {
    v: VERSION,
    plan,
    clock: clockUs,
    sources: formatPlaces(sources),
    ...(tiers.size === 0 ? {} : { tiers: Object.fromEntries(released) as CheckpointText['tiers'] & object }),
    ...(heldBehind ? { held: 'behind' } : {}),
    ...standingOf({ standing }),
  };
  return JSON.stringify(text);
}

/** The checkpoint that `formatCheckpoint` wrote. Throws `frame_unreadable` or `frame_version`, naming `place`. */
export function parseCheckpoint(text: string, place: string): Checkpoint {
  let parsed: CheckpointText;
  try {
    parsed = JSON.parse(text) as CheckpointText;
  } catch (cause) {
    throw new ReplicationError('frame_unreadable', `${place} has a checkpoint that is not JSON`, { cause });
  }
  if (parsed.v > VERSION)
    throw new ReplicationError('frame_version', `${place} has a checkpoint of version ${parsed.v}`);
  if (typeof parsed.sources !== 'object' || typeof parsed.clock !== 'number')
    throw new ReplicationError('frame_unreadable', `${place} has a checkpoint without sources`);
  const tiers = Object.entries(parsed.tiers ?? {}).map(([id, release]): [string, Release] => [
    id,
    { clockUs: release.clock, sources: parsePlaces(release.sources, place), ...standingOf(release) },
  ]);
  const sources = parsePlaces(parsed.sources, place);
  return {
    plan: parsed.plan,
    clockUs: parsed.clock,
    sources,
    tiers: new Map(tiers),
    heldBehind: parsed.held === 'behind',
    ...standingOf(parsed),
  };
}

function formatPlaces(places: Places): CheckpointText['sources'] {
  return Object.fromEntries(
    [...places].map(([source, { position, seq }]) => [source, [formatPosition(position), seq] as const]),
  );
}

function parsePlaces(given: CheckpointText['sources'], place: string): Places {
  return new Map(
    Object.entries(given).map(([source, [text, seq]]) => {
      const position = parsePosition(text);
      if (position === undefined)
        throw new ReplicationError('frame_unreadable', `${place} has a checkpoint with "${text}", not a position`);
      return [source, { position, seq }];
    }),
  );
}

function standingOf({ standing }: { readonly standing?: string | undefined }): { standing?: string } {
  return standing === undefined || standing === '' ? {} : { standing };
}
