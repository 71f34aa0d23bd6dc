/** Opens the sides of a flow for the engines that its source and its target are. */
import type { Config } from '../../core/config.ts';
import { ReplicationError } from '../../core/errors.ts';
import { compileTablePatterns, type TableFilter } from '../../core/table-pattern.ts';
import { PostgresDriftStore } from './postgres/postgres-drift-store.ts';
import { PostgresDriftSource, PostgresDriftTarget } from './postgres/postgres-side.ts';
import { openSession } from './postgres/session.ts';
import type { DriftSource, DriftTarget } from './side.ts';
import type { Sides } from './verify-flow.ts';

/** The tables that a flow replicates: those of its source that it does not leave out. */
export function flowTables(config: Config, flow: string): TableFilter {
  const settings = config.flows[flow]!;
  const captured = compileTablePatterns(config.sources[settings.mirror]!.tables);
  const taken = settings.tables === undefined ? () => true : compileTablePatterns(settings.tables);
  return (schema, name) => captured(schema, name) && taken(schema, name);
}

/** The two databases of a flow. */
export interface Ends {
  readonly source: DriftSource;
  readonly target: DriftTarget;
}

/** Connects to both databases. Throws `config_invalid` for an engine that cannot be compared yet. */
export async function openEnds(config: Config, flow: string, applicationName: string): Promise<Ends> {
  const settings = config.flows[flow]!;
  const target = config.targets[settings.to]!;
  if ((target.kind as string) !== 'postgres') throw notYet(flow, `target ${settings.to}`, target.kind);
  const source = await openSource(config, flow, applicationName);
  try {
    const { url, tls } = target;
    return {
      source,
      target: await PostgresDriftTarget.open(flow, { url, tls, applicationName, include: () => true }),
    };
  } catch (thrown) {
    await source.close();
    throw thrown;
  }
}

async function openSource(config: Config, flow: string, applicationName: string): Promise<DriftSource> {
  const name = config.flows[flow]!.mirror;
  const { url, tls, kind } = config.sources[name]!;
  if ((kind as string) !== 'postgres') throw notYet(flow, `source ${name}`, kind);
  return await PostgresDriftSource.open(name, { url, tls, applicationName, include: flowTables(config, flow) });
}

function notYet(flow: string, what: string, kind: string): ReplicationError {
  return new ReplicationError('config_invalid', `flow ${flow}: ${what} is ${kind}, which cannot be compared yet`);
}

/** Connects to all that a comparison needs. The caller closes it with `closeSides`. */
export async function openSides(config: Config, flow: string): Promise<Sides> {
  const settings = config.flows[flow]!;
  const applicationName = `waybill verify ${flow}`;
  const ends = await openEnds(config, flow, applicationName);
  const opened: { close(): Promise<void> }[] = [ends.source, ends.target];
  try {
    const scanner = await openSource(config, flow, applicationName);
    opened.push(scanner);
    const client = await openSession('target', config.targets[settings.to]!, applicationName);
    opened.push({ close: () => client.end() });
    return { ...ends, scanner, store: await PostgresDriftStore.open(client, flow, settings.mirror) };
  } catch (thrown) {
    await Promise.all(opened.map((side) => side.close()));
    throw thrown;
  }
}

export async function closeSides({ source, scanner, target, store }: Sides): Promise<void> {
  await Promise.all([source.close(), scanner.close(), target.close(), store.close()]);
}
