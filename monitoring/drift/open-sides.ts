/** Opens the sides of a flow for the engines that its source and its target are. */
import type { Config } from '../../core/config.ts';
import { ReplicationError } from '../../core/errors.ts';
import { compileTablePatterns, type TableFilter } from '../../core/table-pattern.ts';
import { PostgresDriftStore } from './postgres/postgres-drift-store.ts';
import { PostgresDriftSource, PostgresDriftTarget } from './postgres/postgres-side.ts';
import { openSession } from './postgres/session.ts';
import type { Sides } from './verify-flow.ts';

/** The tables that a flow replicates: those of its source that it does not leave out. */
export function flowTables(config: Config, flow: string): TableFilter {
  const settings = config.flows[flow]!;
  const captured = compileTablePatterns(config.sources[settings.mirror]!.tables);
  const taken = settings.tables === undefined ? () => true : compileTablePatterns(settings.tables);
  return (schema, name) => captured(schema, name) && taken(schema, name);
}

/** Connects to both sides. The caller closes them with `closeSides`. */
export async function openSides(config: Config, flow: string): Promise<Sides> {
  const settings = config.flows[flow]!;
  const source = config.sources[settings.mirror]!;
  const target = config.targets[settings.to]!;
  for (const [what, kind] of [
    [`source ${settings.mirror}`, source.kind],
    [`target ${settings.to}`, target.kind],
  ] as const)
    if ((kind as string) !== 'postgres')
      throw new ReplicationError('config_invalid', `flow ${flow}: ${what} is ${kind}, which cannot be compared yet`);
  const applicationName = `waybill verify ${flow}`;
  const opened: { close(): Promise<void> }[] = [];
  const keep = <T extends { close(): Promise<void> }>(side: T): T => {
    opened.push(side);
    return side;
  };
  try {
    const include = flowTables(config, flow);
    const from = { url: source.url, tls: source.tls, applicationName, include };
    return {
      source: keep(await PostgresDriftSource.open(settings.mirror, from)),
      scanner: keep(await PostgresDriftSource.open(settings.mirror, from)),
      target: keep(
        await PostgresDriftTarget.open(flow, {
          url: target.url,
          tls: target.tls,
          applicationName,
          include: () => true,
        }),
      ),
      store: keep(
        await PostgresDriftStore.open(await openSession('target', target, applicationName), flow, settings.mirror),
      ),
    };
  } catch (thrown) {
    await Promise.all(opened.map((side) => side.close()));
    throw thrown;
  }
}

export async function closeSides({ source, scanner, target, store }: Sides): Promise<void> {
  await Promise.all([source.close(), scanner.close(), target.close(), store.close()]);
}
