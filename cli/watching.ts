/** Composes what watches all processes of an installation: the alerts, and the console. */
import { flowSettings, type Config } from '../core/config.ts';
import type { Logger } from '../core/logger.ts';
import { runNotifier } from '../monitoring/alerts/notifier.ts';
import type { OutboxEntry } from '../monitoring/alerts/outbox.ts';
import type { Labels } from '../monitoring/alerts/sample-set.ts';
import { Console } from '../monitoring/console/console.ts';
import type { Observatory } from '../monitoring/observation.ts';
import type { Pages } from '../monitoring/server.ts';
import { audit, targetsOf } from './audit.ts';
import { createConsoleStage } from './console/console-data.ts';

export interface WatchOptions {
  readonly observatory: Observatory;
  readonly holder: string;
  readonly leaseTtlMs: number;
  /** Scales the times of alerts; 1 but in tests. */
  readonly alertPace: number;
  readonly log: Logger;
}

export interface ConsolePages {
  readonly pages: Pages;
  run(signal: AbortSignal): Promise<void>;
}

/** The console of this process: its pages answer from when they are served, and know the past from when it runs. */
export function createConsole(
  config: Config,
  options: Pick<WatchOptions, 'observatory' | 'alertPace' | 'log'>,
): ConsolePages {
  const { data, run } = createConsoleStage(config, options);
  const { token, hosts } = config.monitoring;
  return { pages: new Console({ data, token, hosts, log: options.log }), run };
}

/** Tells the webhooks of the configuration of alerts, until the signal aborts. */
export async function runAlerts(config: Config, options: WatchOptions, signal: AbortSignal): Promise<void> {
  await runNotifier({
    nats: config.nats,
    webhooks: config.monitoring.webhooks,
    observatory: options.observatory,
    holder: options.holder,
    leaseTtlMs: options.leaseTtlMs,
    pace: options.alertPace,
    log: options.log,
    signal,
    audit: (entry) => noteNotification(config, entry),
  });
}

async function noteNotification(config: Config, entry: OutboxEntry): Promise<void> {
  await audit(config, concerned(config, entry.labels), {
    action: 'notification',
    subject: `webhook ${entry.webhook}`,
    detail: {
      id: entry.id,
      alert: entry.alert,
      state: entry.state,
      labels: entry.labels,
      attempts: entry.attempts,
      outcome: entry.outcome,
    },
  });
}

/** The targets that an alert is about; all of them where it names none. */
function concerned(config: Config, labels: Labels): string[] {
  const { source, target, stage, name } = labels;
  const consumer = labels['consumer']?.replace(/^transform /, '');
  const flow = flowSettings(config, labels['flow'] ?? consumer ?? (stage === 'capture' ? '' : (name ?? '')));
  if (flow !== undefined) return [flow.to];
  if (target !== undefined && config.targets[target] !== undefined) return [target];
  const captured = source ?? (stage === 'capture' ? name : undefined);
  return captured === undefined ? Object.keys(config.targets) : targetsOf(config, captured);
}
