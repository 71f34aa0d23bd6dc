/** Comparisons and heartbeats read the server that the capture reads, where the url of a source names several. */
import type { Config } from '../core/config.ts';
import { serverUrls } from '../core/source-url.ts';

/** The configuration with the one server of the flow's source that is to be read now. Throws classified errors. */
export async function withChosenServer(config: Config, flow: string): Promise<Config> {
  return await chooseServer(config, config.flows[flow]!.mirror);
}

/** The same for several sources. */
export async function withChosenServers(config: Config, sources: readonly string[]): Promise<Config> {
  let chosen = config;
  for (const name of sources) chosen = await chooseServer(chosen, name);
  return chosen;
}

async function chooseServer(config: Config, name: string): Promise<Config> {
  const source = config.sources[name]!;
  if (source.kind === 'postgres' || serverUrls(source.url).length === 1) return config;
  const { connectChosen } = await import('../capture/mysql/choose-server.ts');
  const { client, settings } = await connectChosen(source);
  client.end();
  return { ...config, sources: { ...config.sources, [name]: settings } };
}
