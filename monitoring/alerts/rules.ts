/**
 * The conditions of monitoring/prometheus/waybill.rules.yml for those without Prometheus: the same names, severities,
 * patience, labels and sentences. test/unit/alert-rules.test.ts runs both on the same series.
 */
import { METRIC } from '../metric-names.ts';
import { MINUTE_MS, threshold, type AlertRule, type Severity, type Verdict } from './alert-rule.ts';
import { DRIFT_RULES } from './drift-rules.ts';
import { humanBytes, humanDuration } from './human.ts';
import type { Labels, SampleSet } from './sample-set.ts';

/** The same condition with two limits. */
function lagRules(
  alert: string,
  [metric]: readonly [string, string],
  by: readonly string[],
  summary: AlertRule['summary'],
): AlertRule[] {
  const rule = (name: string, severity: Severity, limit: number): AlertRule => ({
    alert: name,
    severity,
    forMs: MINUTE_MS,
    runbook: alert.toLowerCase(),
    judge: ({ samples }) => threshold(samples.max(metric, by), (seconds) => seconds > limit),
    summary,
  });
  return [rule(alert, 'warning', 60), rule(`${alert}Critical`, 'critical', 600)];
}

const among =
  (...states: string[]) =>
  (labels: Labels): number =>
    states.includes(labels['state'] ?? '') ? 1 : 0;

/** Stages that no process runs, though a configuration names them: each process counts those of its own. */
function vanished(samples: SampleSet, concerns: (stage: string) => boolean): Verdict[] {
  const stages = samples.sum(METRIC.stageProcesses[0], ['stage', 'name']);
  return threshold(
    stages.filter(({ labels }) => concerns(labels['stage']!)),
    (processes) => processes === 0,
  );
}

/** What no configuration names any more is not missed. */
const untilUnnamed: AlertRule['unjudged'] = (_, { samples }) =>
  samples.all(METRIC.stageProcesses[0]).length > 0 ? 'ended' : undefined;

export const ALERT_RULES: readonly AlertRule[] = [
  ...lagRules(
    'WaybillCaptureLag',
    METRIC.captureLag,
    ['source'],
    ({ source }, value) => `Source ${source}: changes wait ${humanDuration(value)} before they are in the stream`,
  ),
  ...lagRules(
    'WaybillApplyLag',
    METRIC.applyLag,
    ['flow', 'target'],
    ({ flow }, value) => `Flow ${flow}: the target is ${humanDuration(value)} behind the source`,
  ),
  {
    alert: 'WaybillHeartbeatLate',
    severity: 'warning',
    forMs: MINUTE_MS,
    runbook: 'waybillheartbeatlate',
    judge: ({ samples }) =>
      threshold(samples.max(METRIC.heartbeat[0], ['source', 'target']), (seconds) => seconds > 60),
    summary: ({ source, target }, value) =>
      `A heartbeat from ${source} has not reached ${target} for ${humanDuration(value)}`,
  },
  {
    alert: 'WaybillCaptureNotStreaming',
    severity: 'critical',
    forMs: 5 * MINUTE_MS,
    runbook: 'waybillcapturenotstreaming',
    judge: ({ samples }) =>
      threshold(
        samples.sum(METRIC.captureState[0], ['source'], among('streaming', 'idle', 'snapshot')),
        (captures) => captures === 0,
      ),
    summary: ({ source }) => `Source ${source} is not being captured; its log piles up`,
  },
  {
    alert: 'WaybillCaptureAbsent',
    severity: 'critical',
    forMs: 5 * MINUTE_MS,
    runbook: 'waybillcaptureabsent',
    judge: ({ samples }) => [{ labels: {}, value: 1, holds: samples.all(METRIC.captureState[0]).length === 0 }],
    summary: () => 'No capture reports at all',
  },
  {
    alert: 'WaybillCaptureVanished',
    severity: 'critical',
    forMs: 5 * MINUTE_MS,
    runbook: 'waybillcaptureabsent',
    judge: ({ samples }) =>
      vanished(samples, (stage) => stage === 'capture').map(({ labels, ...rest }) => ({
        ...rest,
        labels: { source: labels['name']! },
      })),
    unjudged: untilUnnamed,
    summary: ({ source }) => `No process captures source ${source}, which the configuration names`,
  },
  {
    alert: 'WaybillStageVanished',
    severity: 'critical',
    forMs: 5 * MINUTE_MS,
    runbook: 'waybillstagevanished',
    judge: ({ samples }) => vanished(samples, (stage) => stage !== 'capture'),
    unjudged: untilUnnamed,
    summary: ({ stage, name }) => `No process runs ${stage} ${name}, which the configuration names`,
  },
  {
    alert: 'WaybillFlowNotRunning',
    severity: 'critical',
    forMs: 5 * MINUTE_MS,
    runbook: 'waybillflownotrunning',
    judge: ({ samples }) =>
      threshold(
        samples.sum(METRIC.flowState[0], ['flow', 'target'], among('applying', 'idle')),
        (running) => running === 0,
      ),
    summary: ({ flow }) => `Flow ${flow} does not apply changes`,
  },
  {
    alert: 'WaybillTransformNotRunning',
    severity: 'critical',
    forMs: 5 * MINUTE_MS,
    runbook: 'waybilltransformnotrunning',
    judge: ({ samples }) =>
      threshold(samples.sum(METRIC.transformState[0], ['flow'], among('applying', 'idle')), (running) => running === 0),
    summary: ({ flow }) => `Flow ${flow} makes no records`,
  },
  {
    alert: 'WaybillTableStopped',
    severity: 'critical',
    forMs: MINUTE_MS,
    runbook: 'waybilltablestopped',
    // The series of a table ends when it is followed again: that there is none is known where the flow reports.
    judge: ({ samples }) => {
      const stopped = new Map(samples.sum(METRIC.tableStopped[0], ['flow']).map((each) => [each.labels['flow'], each]));
      return samples.max(METRIC.flowState[0], ['flow']).map(({ labels }) => {
        const value = stopped.get(labels['flow'])?.value ?? 0;
        return { labels, value, holds: value > 0 };
      });
    },
    summary: ({ flow }, value) => `Flow ${flow}: ${value} tables are not followed any more`,
  },
  {
    alert: 'WaybillRetainedLog',
    severity: 'warning',
    forMs: 10 * MINUTE_MS,
    runbook: 'waybillretainedlog',
    judge: ({ samples }) =>
      threshold(samples.max(METRIC.captureRetained[0], ['source']), (bytes) => bytes > 1_073_741_824),
    summary: ({ source }, value) => `Source ${source} keeps ${humanBytes(value)} of log for Waybill`,
  },
  {
    alert: 'WaybillLogBudget',
    severity: 'critical',
    forMs: MINUTE_MS,
    runbook: 'waybilllogbudget',
    judge: ({ samples }) => threshold(samples.max(METRIC.captureBudget[0], ['source']), (seconds) => seconds < 3600),
    summary: ({ source }, value) => `Source ${source} drops log that is still needed in ${humanDuration(value)}`,
  },
  {
    alert: 'WaybillStreamRetention',
    severity: 'critical',
    forMs: MINUTE_MS,
    runbook: 'waybillstreamretention',
    judge: ({ samples }) =>
      threshold(samples.max(METRIC.streamRetention[0], ['stream', 'consumer']), (seconds) => seconds < 3600),
    // Where nothing waits there is no such time.
    unjudged: ({ stream, consumer }, { samples }) =>
      samples
        .all(METRIC.pendingFrames[0])
        .some(({ labels, value }) => labels['stream'] === stream && labels['consumer'] === consumer && value === 0)
        ? 'ended'
        : undefined,
    summary: ({ stream, consumer }, value) =>
      `Stream ${stream} drops frames that ${consumer} has not taken in ${humanDuration(value)}`,
  },
  ...DRIFT_RULES,
  {
    alert: 'WaybillQuarantineGrows',
    severity: 'warning',
    forMs: 30 * MINUTE_MS,
    runbook: 'waybillquarantinegrows',
    judge: ({ samples, history, nowMs }) => {
      const rise = history.quarantineRise(nowMs, 30 * MINUTE_MS);
      return samples.sum(METRIC.quarantineKeys[0], ['flow']).map(({ labels, value }) => ({
        labels,
        value: rise.get(labels['flow']!) ?? 0,
        holds: value > 0 && (rise.get(labels['flow']!) ?? 0) > 0,
      }));
    },
    summary: ({ flow }) => `Flow ${flow}: more and more keys wait in quarantine`,
  },
  {
    alert: 'WaybillStalled',
    severity: 'critical',
    forMs: 0,
    runbook: 'waybillstalled',
    judge: ({ samples }) => threshold(samples.max(METRIC.stalled[0], ['stage', 'name']), (seconds) => seconds > 300),
    summary: ({ stage, name }, value) => `${stage} ${name} has work and has not moved for ${humanDuration(value)}`,
  },
];
