/** Opens the sides of a flow for the engines that its source and its target are. Each is loaded when it is asked for. */
import { flowSettings, markPrefix, type Config } from '../../core/config.ts';
import { compileTablePatterns, type TableFilter } from '../../core/table-pattern.ts';
import type { DriftStore } from './drift-store.ts';
import type { DriftSource, DriftTarget } from './side.ts';
import type { Sides } from './verify-flow.ts';

/** The tables that a flow replicates: those of its source that it does not leave out. */
export function flowTables(config: Config, flow: string): TableFilter {
  const settings = config.flows[flow]!;
  const captured = compileTablePatterns(config.sources[settings.mirror]!.tables);
  const taken = settings.tables === undefined ? () => true : compileTablePatterns(settings.tables);
  return (schema, name) => captured(schema, name) && taken(schema, name);
}

/**
 * The schema (MySQL: database) of the target that tables of a schema of the source go to: the flow's, else the one of
 * that name; in MySQL the database of the url stands for `public`.
 */
export function placeOf(config: Config, flow: string): (schema: string) => string {
  const { schema, to } = config.flows[flow]!;
  const { kind, url } = config.targets[to]!;
  if (schema !== undefined) return () => schema;
  if (kind === 'postgres') return (name) => name;
  const database = decodeURIComponent(new URL(url).pathname.slice(1));
  return (name) => (name === 'public' && database !== '' ? database : name);
}

/** The two databases of a flow. */
export interface Ends {
  readonly source: DriftSource;
  readonly target: DriftTarget;
}

/** Connects to both databases. */
export async function openEnds(config: Config, flow: string, applicationName: string): Promise<Ends> {
  const source = await openSource(config, flow, applicationName);
  try {
    return { source, target: await openTarget(config, flow, applicationName) };
  } catch (thrown) {
    await source.close();
    throw thrown;
  }
}

async function openSource(config: Config, flow: string, applicationName: string): Promise<DriftSource> {
  return await openLog(config, config.flows[flow]!.mirror, applicationName, flowTables(config, flow));
}

/** Connects to a source, of which `include` chooses tables. Left out: only its log is asked for. */
export async function openLog(
  config: Config,
  name: string,
  applicationName: string,
  include: TableFilter = () => false,
): Promise<DriftSource> {
  const settings = config.sources[name]!;
  const { url, tls } = settings;
  const options = { url, tls, applicationName, include };
  if (settings.kind === 'postgres') {
    const { PostgresDriftSource } = await import('./postgres/postgres-side.ts');
    return await PostgresDriftSource.open(markPrefix(name, settings, config.nats.prefix), options);
  }
  const { MysqlDriftSource } = await import('./mysql/mysql-side.ts');
  return await MysqlDriftSource.open({ ...options, kind: settings.kind });
}

async function openTarget(
  config: Config,
  flow: string,
  applicationName: string,
  include: TableFilter = () => true,
): Promise<DriftTarget> {
  const { url, tls, kind } = config.targets[flowSettings(config, flow)!.to]!;
  const options = { url, tls, applicationName, include };
  if (kind === 'postgres') {
    const { PostgresDriftTarget } = await import('./postgres/postgres-side.ts');
    return await PostgresDriftTarget.open(flow, options);
  }
  const { MysqlDriftTarget } = await import('./mysql/mysql-side.ts');
  return await MysqlDriftTarget.open(flow, { ...options, kind });
}

async function openStore(config: Config, flow: string, applicationName: string): Promise<DriftStore> {
  const { to, mirror } = flowSettings(config, flow)!;
  const { url, tls, kind } = config.targets[to]!;
  if (kind !== 'postgres') {
    const { CompareSession } = await import('./mysql/session.ts');
    const { MysqlDriftStore } = await import('./mysql/mysql-drift-store.ts');
    const session = await CompareSession.open('target', { kind, url, tls }, applicationName);
    return await MysqlDriftStore.open(session, flow, mirror);
  }
  const { openSession } = await import('./postgres/session.ts');
  const { PostgresDriftStore } = await import('./postgres/postgres-drift-store.ts');
  return await PostgresDriftStore.open(await openSession('target', { url, tls }, applicationName), flow, mirror);
}

/** Connects to all that a comparison needs. The caller closes it with `closeSides`. */
export async function openSides(config: Config, flow: string): Promise<Sides> {
  const applicationName = `waybill verify ${flow}`;
  const ends = await openEnds(config, flow, applicationName);
  const opened: { close(): Promise<void> }[] = [ends.source, ends.target];
  try {
    const scanner = await openSource(config, flow, applicationName);
    opened.push(scanner);
    return { ...ends, scanner, store: await openStore(config, flow, applicationName) };
  } catch (thrown) {
    await Promise.all(opened.map((side) => side.close()));
    throw thrown;
  }
}

/** Connects to the target of a flow of records, and to what is kept there of comparisons. */
export async function openRecordsTarget(
  config: Config,
  flow: string,
  applicationName: string,
): Promise<{ target: DriftTarget; store: DriftStore }> {
  const { schema, canonical } = config.canonicalFlows[flow]!;
  const target = await openTarget(config, flow, applicationName, (s, name) => s === schema && name === canonical);
  try {
    return { target, store: await openStore(config, flow, applicationName) };
  } catch (thrown) {
    await target.close();
    throw thrown;
  }
}

export async function closeSides({ source, scanner, target, store }: Sides): Promise<void> {
  await Promise.all([source.close(), scanner.close(), target.close(), store.close()]);
}
