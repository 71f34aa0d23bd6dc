/**
 * `waybill check`: looks at everything before the start. What looks is loaded once the configuration is read: a fault in
 * it is told at once, and nothing is loaded for kinds of database that it does not have.
 */
import { targetOf } from '../../apply/target-kind.ts';
import { flowNames, flowSettings, type Config, type SourceConfig } from '../../core/config.ts';
import { asReplicationError, ReplicationError } from '../../core/errors.ts';
import type { Finding } from '../../core/finding.ts';
import type { TableSchema } from '../../core/frame.ts';
import { mappingFindings, outboundFindings } from '../canonical-flows.ts';
import { readConfig, type GlobalOptions } from '../context.ts';
import { EXIT } from '../exit-status.ts';
import { flowClashes } from '../flow-clashes.ts';
import { printable } from '../printable.ts';
import { sourceTables } from '../source-tables.ts';

export interface CheckOptions extends GlobalOptions {
  readonly json?: boolean;
}

export async function check(options: CheckOptions): Promise<number> {
  const config = readConfig(options);
  const findings: Finding[] = [{ severity: 'ok', subject: 'configuration', message: 'valid' }, await checkNats(config)];
  for (const [name, settings] of Object.entries(config.sources))
    findings.push(...(await checkSource(name, settings, config.nats.prefix)));
  const tables = await knownTables(config);
  const ofFlow = Object.fromEntries(
    Object.entries(config.flows).map(([flow, { mirror }]) => [flow, tables[mirror] ?? []]),
  );
  const flows = Object.fromEntries(flowNames(config).map((flow) => [flow, flowSettings(config, flow)!]));
  for (const [name, settings] of Object.entries(config.targets))
    findings.push(...(await (await targetOf(settings)).check(name, flows, ofFlow)));
  findings.push(
    ...flowClashes(config, ofFlow),
    ...(await mappingFindings(config, tables)),
    ...(await outboundFindings(config)),
  );
  if (options.json === true) console.log(JSON.stringify(findings, undefined, 2));
  else
    for (const { severity, subject, message, remedy } of findings) {
      console.log(printable(`${severity.padEnd(7)}  ${subject}: ${message}`));
      if (remedy !== undefined) console.log(`         remedy: ${remedy}`);
    }
  return findings.some((finding) => finding.severity === 'error') ? EXIT.no : EXIT.good;
}

async function checkSource(name: string, settings: SourceConfig, prefix: string): Promise<Finding[]> {
  if (settings.kind === 'postgres') {
    const { checkPostgresSource } = await import('../../capture/postgres/preflight.ts');
    return await checkPostgresSource(name, settings, prefix);
  }
  const { checkMysqlSource } = await import('../../capture/mysql/preflight.ts');
  return await checkMysqlSource(name, settings);
}

/** The tables of each source that a flow reads and that can be read; the source's own findings say why another cannot. */
async function knownTables(config: Config): Promise<Record<string, readonly TableSchema[]>> {
  const ofSource: Record<string, readonly TableSchema[]> = {};
  const mirrored = Object.values(config.flows).map((flow) => flow.mirror);
  const mapped = Object.values(config.canonicalFlows).flatMap((flow) => Object.keys(flow.from));
  for (const name of new Set([...mirrored, ...mapped]))
    try {
      ofSource[name] = await sourceTables(config.sources[name]!);
    } catch (thrown) {
      if (!(thrown instanceof ReplicationError)) throw thrown;
    }
  return ofSource;
}

async function checkNats(config: Config): Promise<Finding> {
  const { connectNats } = await import('../../core/nats.ts');
  try {
    const nats = await connectNats(config.nats, 'waybill check');
    const limit = nats.connection.info?.max_payload ?? 0;
    await nats.close();
    if (limit < 65_536)
      return {
        severity: 'error',
        subject: 'nats',
        message: `max_payload is ${limit} bytes`,
        remedy: new ReplicationError('nats_payload_too_small', '').remedy,
      };
    return { severity: 'ok', subject: 'nats', message: `JetStream answers; max_payload ${limit} bytes` };
  } catch (thrown) {
    const error = asReplicationError(thrown);
    return { severity: 'error', subject: `nats: ${error.code}`, message: error.message, remedy: error.remedy };
  }
}
