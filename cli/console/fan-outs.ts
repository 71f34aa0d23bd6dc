/** The fan-outs of flows of records in the overview: NATS is what they write to. */
import { readFanOutPlace } from '../../apply/nats/fan-out-store.ts';
import { asReplicationError } from '../../core/errors.ts';
import { formatPosition } from '../../core/position.ts';
import { placeText } from '../place-text.ts';
import { fanOutName, recordsStreamName } from '../../core/record-messages.ts';
import type { SampleSet } from '../../monitoring/alerts/sample-set.ts';
import type { FlowView, StreamView } from '../../monitoring/console/views.ts';
import type { Connections } from './connections.ts';
import { factsOf, transformName, workOf, type OverviewInput, type OwnWord } from './facts.ts';

/** Fan-outs as flows, named as `waybill status` names them. */
export async function readFanOuts(
  { config, connections, observations }: OverviewInput,
  samples: SampleSet,
  streams: readonly StreamView[],
): Promise<FlowView[]> {
  const { prefix } = config.nats;
  const wanted = Object.entries(config.canonicalFlows).filter(([, settings]) => settings.fan_out);
  return await Promise.all(
    wanted.map(async ([flow, { canonical }]): Promise<FlowView> => {
      const name = fanOutName(flow);
      const source = transformName(flow);
      const stream = streams.find((each) => each.source === source);
      const place = await placeOf(connections, prefix, canonical);
      return {
        name,
        source,
        target: recordsStreamName(prefix, canonical),
        targetKind: 'nats',
        fanOut: true,
        ...workOf(factsOf(observations, 'apply', name), place, samples, { name, stream }),
      };
    }),
  );
}

async function placeOf(
  connections: Connections,
  prefix: string,
  entity: string,
): Promise<Pick<OwnWord, 'position' | 'detail'>> {
  try {
    const place = await connections.nats.use((nats) => readFanOutPlace(nats, prefix, entity));
    return place === undefined
      ? {}
      : { position: placeText({ position: formatPosition(place.position), streamSeq: place.seq }, true) };
  } catch (thrown) {
    const error = asReplicationError(thrown);
    if (error.code === 'internal') throw thrown;
    return { detail: `${error.code}: ${error.message}` };
  }
}
