/** Hears what the processes of an installation say of their stages. */
import { setTimeout as delay } from 'node:timers/promises';
import type { NatsConfig } from '../../core/config.ts';
import type { Nats } from '../../core/nats.ts';
import type { StageFacts } from '../../monitoring/health.ts';
import {
  askSubject,
  observationSubject,
  SILENT_MS,
  type Observation,
  type Sample,
} from '../../monitoring/observation.ts';

export interface StageListener {
  /** The latest word of each stage (`capture:wms`), of the process that works on it where several have it. */
  facts(): Map<string, StageFacts>;
  /** The gauges of all processes that spoke lately. */
  samples(): Sample[];
  /** Waits until all of `stages` have been heard, or for as long as an answer may take. */
  hear(stages: ReadonlySet<string>): Promise<void>;
}

/** Processes speak every two seconds, and at once when they are asked to. */
const HEAR_MS = 2500;
const POLL_MS = 10;

/** Listens until the connection is closed. */
export function hearStages(nats: Nats, config: NatsConfig): StageListener {
  const seen = new Map<string, { said: Observation; atMs: number }>();
  nats.connection.subscribe(observationSubject(config), {
    callback: (error, message) => {
      if (error !== null) return;
      const observation = message.json<Observation>();
      if (observation.v !== 1) return;
      if (observation.leaves === true) seen.delete(observation.process);
      else seen.set(observation.process, { said: observation, atMs: performance.now() });
    },
  });
  nats.connection.publish(askSubject(config));
  const lately = (): Observation[] =>
    [...seen.values()].flatMap(({ said, atMs }) => (performance.now() - atMs > SILENT_MS ? [] : [said]));
  const facts = (): Map<string, StageFacts> => {
    const found = new Map<string, StageFacts>();
    for (const { stages } of lately()) {
      for (const stage of stages) {
        const id = `${stage.kind}:${stage.name}`;
        const other = found.get(id);
        if (other === undefined || rank(stage) > rank(other)) found.set(id, stage);
      }
    }
    return found;
  };
  return {
    facts,
    samples: () => lately().flatMap(({ samples }) => samples),
    async hear(stages) {
      const until = performance.now() + HEAR_MS;
      while (performance.now() < until) {
        const known = facts();
        if ([...stages].every((stage) => known.has(stage))) return;
        await delay(POLL_MS);
      }
    },
  };
}

/** Of two processes that have the same stage one works, and the other stands by or fails to begin. */
function rank({ state }: StageFacts): number {
  if (state === 'stopped') return 0;
  if (state === 'standby') return 1;
  return state === 'starting' || state === 'waiting' ? 2 : 3;
}
