/** `waybill grants`: the least privileges, as SQL for a DBA to review and run. */
import { targetOf } from '../../apply/target-kind.ts';
import { flowNames, flowSettings, type Config } from '../../core/config.ts';
import { ReplicationError } from '../../core/errors.ts';
import { serverUrls } from '../../core/source-url.ts';
import { readConfig, requireSource, type GlobalOptions } from '../context.ts';
import { EXIT } from '../exit-status.ts';

export async function grants(name: string, options: GlobalOptions): Promise<number> {
  const config = readConfig(options);
  const target = config.targets[name];
  if (target !== undefined) {
    const schemas = flowNames(config)
      .filter((flow) => config.outboundFlows[flow] === undefined)
      .map((flow) => flowSettings(config, flow)!)
      .filter((flow) => flow.to === name)
      .map((flow) => flow.schema ?? (target.kind === 'postgres' ? 'public' : databaseName(target.url)));
    const { loadOutboundPlan } = await import('../../transform/outbound/outbound-file.ts');
    const outbound = Object.values(config.outboundFlows)
      .filter(({ to }) => to === name)
      .map(({ map, outbound: entity }) => loadOutboundPlan(map, entity));
    console.log((await targetOf(target)).grantsSql(userOf(target.url), [...new Set(schemas)], outbound));
  } else {
    console.log(await sourceGrants(config, name));
  }
  return EXIT.good;
}

async function sourceGrants(config: Config, name: string): Promise<string> {
  const source = requireSource(config, name);
  const user = userOf(serverUrls(source.url)[0]!);
  if (source.kind === 'postgres') {
    const { sourceGrantsSql } = await import('../../capture/postgres/grants.ts');
    return sourceGrantsSql(name, source, config.nats.prefix, user);
  }
  const { mysqlGrantsSql } = await import('../../capture/mysql/grants.ts');
  return mysqlGrantsSql(name, source, user);
}

/** The database that a url names, else the one that a source's tables usually lie in. */
function databaseName(url: string): string {
  return decodeURIComponent(new URL(url).pathname.slice(1)) || 'public';
}

function userOf(url: string): string {
  try {
    return decodeURIComponent(new URL(url).username) || 'waybill';
  } catch {
    throw new ReplicationError('config_invalid', 'the url of this source or target is not a url');
  }
}
