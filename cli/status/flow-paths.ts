/** Which stream each flow reads, and what it brings to which target: flows of tables and of canonical records alike. */
import { canonicalStreamName } from '../../core/canonical-stream.ts';
import { cdcStreamName } from '../../core/cdc-stream.ts';
import { sourcesOf, type Config } from '../../core/config.ts';
import { fanOutName } from '../../core/record-messages.ts';

export interface FlowPath {
  readonly name: string;
  /** The source, or for canonical records their entity. */
  readonly source: string;
  readonly target: string;
  readonly stream: string;
  /** The sources from which something comes to the target. */
  readonly begins: readonly string[];
  /** Its stream is one of records, which are made here: no place of it is one in a source's log. */
  readonly readsRecords?: true;
  /** The entity whose records become messages in NATS, which is the target then. */
  readonly fanOut?: string;
}

export function flowPaths(config: Config): FlowPath[] {
  const { prefix } = config.nats;
  const paths = [
    ...Object.entries(config.flows).map(([name, { mirror, to }]) => ({
      name,
      source: mirror,
      target: to,
      stream: cdcStreamName(prefix, mirror),
    })),
    ...Object.entries(config.canonicalFlows).map(([name, { canonical, to }]) => ({
      name,
      source: canonical,
      target: to,
      stream: canonicalStreamName(prefix, canonical),
      readsRecords: true as const,
    })),
    ...Object.entries(config.outboundFlows).map(([name, { outbound, to }]) => ({
      name,
      source: outbound,
      target: to,
      stream: canonicalStreamName(prefix, outbound),
      readsRecords: true as const,
    })),
  ];
  const fanOuts = Object.entries(config.canonicalFlows).flatMap(([name, { canonical, fan_out: isWanted }]) =>
    isWanted
      ? {
          name: fanOutName(name),
          source: canonical,
          target: 'nats',
          stream: canonicalStreamName(prefix, canonical),
          begins: sourcesOf(config, name),
          readsRecords: true as const,
          fanOut: canonical,
        }
      : [],
  );
  return [...paths.map((path) => ({ ...path, begins: sourcesOf(config, path.name) })), ...fanOuts];
}
