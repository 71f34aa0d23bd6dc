/** The overview: figures that matter first, then the map of flows from source to target, then who does it. */
import { empty, h, pill, setText, sparkline } from './dom.mjs';
import { ago, bytes, count, duration, lag } from './format.mjs';

function figure(label) {
  const value = h('dd', {});
  const element = h('div', { class: 'figure' }, h('dt', {}, label), value);
  element.show = (text, tone) => {
    setText(value, text);
    if (tone === undefined) delete element.dataset.tone;
    else element.dataset.tone = tone;
  };
  return element;
}

function tile(label, href) {
  const value = h('span', { class: 'value' });
  const note = h('span', { class: 'note' });
  const element = h('a', { class: 'tile', href }, h('span', { class: 'label' }, label), value, note);
  element.show = (text, detail, tone = '') => {
    setText(value, text);
    setText(note, detail);
    element.dataset.tone = tone;
  };
  return element;
}

/** A trend with its name and its newest figure. */
function trend(label) {
  const value = h('span', { class: 'now' });
  const line = sparkline(label);
  const element = h('div', { class: 'trend' }, h('span', { class: 'label' }, label), value, line);
  element.show = (values, text, tone) => {
    setText(value, text);
    line.show(values ?? [], text);
    element.dataset.tone = tone ?? '';
  };
  return element;
}

const lagTone = (seconds) => (seconds > 600 ? 'bad' : seconds > 60 ? 'warn' : undefined);

function card(kind, name, note) {
  const state = pill('starting');
  const detail = h('p', { class: 'detail', hidden: true });
  const head = h(
    'div',
    { class: 'head' },
    h('div', { class: 'title' }, h('span', { class: 'kind' }, kind), h('h2', {}, name), note),
    state,
  );
  const element = h('article', { class: 'card' }, head, detail);
  element.state = (next, text) => {
    state.show(next);
    element.dataset.tone = state.dataset.tone;
    detail.hidden = text === undefined;
    setText(detail, text ?? '');
  };
  return element;
}

function sourceCard({ role, title, kind }) {
  const element = card(role === 'transform' ? 'Transform' : 'Source', title, h('span', { class: 'engine' }, kind));
  const delay = trend('Lag');
  const rows = trend('Rows a second');
  const position = figure('Position');
  const kept = figure('Log kept');
  const budget = figure('Log budget');
  element.append(h('div', { class: 'trends' }, delay, rows));
  if (role !== 'transform') element.append(h('dl', { class: 'figures' }, position, kept, budget));
  element.update = (source, trends) => {
    element.state(source.state, source.detail);
    delay.show(trends?.lag, lag(source.lagSeconds), lagTone(source.lagSeconds));
    rows.show(trends?.rows, count(source.rowsPerSecond));
    position.show(source.position ?? '–');
    position.title = source.position ?? '';
    kept.show(bytes(source.retainedLogBytes), source.retainedLogBytes > 2 ** 30 ? 'warn' : undefined);
    budget.hidden = source.logBudgetSeconds === undefined;
    budget.show(duration(source.logBudgetSeconds), source.logBudgetSeconds < 3600 ? 'bad' : undefined);
  };
  return element;
}

function streamCard({ name }) {
  const element = card('Stream', name, '');
  const frames = figure('Frames');
  const size = figure('Stored');
  const newest = figure('Newest frame');
  element.append(h('dl', { class: 'figures' }, frames, size, newest));
  element.update = (stream) => {
    element.state(stream.state);
    frames.show(count(stream.frames));
    size.show(bytes(stream.bytes));
    newest.show(stream.lastFrameAt === undefined ? '–' : ago(stream.lastFrameAt));
  };
  return element;
}

function flowCard({ name, target, targetKind, fanOut }, isCompared) {
  const element = card(
    fanOut ? 'Fan-out' : 'Flow',
    name,
    h('span', { class: 'engine' }, `→ ${target} (${targetKind})`),
  );
  const delay = trend('Lag');
  const rows = trend('Rows a second');
  const position = figure('Position');
  const pending = figure('Frames waiting');
  const kept = figure('Kept for');
  const beat = figure('Heartbeat');
  const verified = figure('Verified');
  const drift = figure('Drift');
  const quarantine = figure('Quarantine');
  element.append(
    h('div', { class: 'trends' }, delay, rows),
    h(
      'dl',
      { class: 'figures' },
      // What brings records to other systems is not compared, and messages are not refused either.
      isCompared ? [verified, drift] : [],
      fanOut ? [] : [quarantine],
      [position, pending, kept],
      fanOut ? [] : [beat],
    ),
  );
  const link = (page, title) => h('a', { href: `#/${page}/${encodeURIComponent(name)}` }, `${title} of `, name);
  if (!fanOut)
    element.append(
      h('p', { class: 'links' }, isCompared ? link('drift', 'Drift') : [], link('quarantine', 'Quarantine')),
    );
  element.update = (flow, trends) => {
    element.state(flow.state, flow.detail);
    delay.show(trends?.lag, lag(flow.lagSeconds), lagTone(flow.lagSeconds));
    rows.show(trends?.rows, count(flow.rowsPerSecond));
    position.show(flow.position ?? '–');
    position.title = flow.position ?? '';
    pending.show(count(flow.pendingFrames));
    kept.hidden = flow.keptSeconds === undefined;
    kept.show(duration(flow.keptSeconds), flow.keptSeconds < 3600 ? 'bad' : undefined);
    beat.show(duration(flow.heartbeatSeconds));
    const age = flow.verifiedAt === undefined ? Infinity : (Date.now() - Date.parse(flow.verifiedAt)) / 1000;
    verified.show(ago(flow.verifiedAt), age > 86_400 ? 'warn' : undefined);
    verified.title = flow.verifiedAt ?? '';
    drift.show(
      flow.drift === undefined ? '–' : flow.drift === 0 ? 'none' : count(flow.drift),
      flow.drift > 0 ? 'bad' : undefined,
    );
    quarantine.show(
      flow.quarantined === undefined ? '–' : flow.quarantined === 0 ? 'empty' : count(flow.quarantined),
      flow.quarantined > 0 ? 'warn' : undefined,
    );
  };
  return element;
}

function connector() {
  const element = h('div', { class: 'hop', 'aria-hidden': 'true' });
  element.show = (moving, tone) => {
    element.dataset.moving = String(moving);
    element.dataset.tone = tone;
  };
  return element;
}

/** One source with its stream and the flows that read it; `transforms` read it, too, and have lanes of their own. */
function lane(source, stream, flows, transforms, compared) {
  const from = sourceCard(source);
  const through = streamCard(stream);
  const to = new Map(flows.map((flow) => [flow.name, flowCard(flow, compared.has(flow.name))]));
  const elsewhere =
    transforms.length === 0
      ? empty('No flow', 'Nothing reads this stream yet.')
      : empty(
          'Made into records',
          `Read by transform ${transforms.map(({ title }) => title).join(', ')}, shown below.`,
        );
  const [first, second] = [connector(), connector()];
  const element = h(
    'section',
    { class: 'lane', 'aria-label': `From ${source.role} ${source.title}` },
    from,
    first,
    through,
    second,
    h('div', { class: 'ends' }, to.size === 0 ? elsewhere : [...to.values()]),
  );
  element.update = (overview) => {
    const now = overview.sources.find((each) => each.name === source.name);
    from.update(now, overview.trends[`source:${source.name}`]);
    through.update(overview.streams.find((each) => each.source === source.name));
    first.show(now.rowsPerSecond > 0, from.dataset.tone);
    let moving = false;
    let tone = 'ok';
    for (const flow of overview.flows.filter((each) => each.source === source.name)) {
      to.get(flow.name)?.update(flow, overview.trends[`flow:${flow.name}`]);
      moving ||= flow.rowsPerSecond > 0;
      if (to.get(flow.name)?.dataset.tone === 'bad') tone = 'bad';
    }
    second.show(moving, tone);
  };
  return element;
}

function showTiles(tiles, { sources, flows }, compared) {
  const bad = (states) => (each) => !states.includes(each.state);
  const working = ['streaming', 'idle', 'snapshot', 'applying'];
  const broken = sources.filter(bad(working)).length + flows.filter(bad(working)).length;
  const all = sources.length + flows.length;
  tiles.health.show(
    `${all - broken} / ${all}`,
    broken === 0 ? 'sources and flows run' : `${broken} do not run`,
    broken === 0 ? 'ok' : 'bad',
  );
  const lags = flows.map((flow) => flow.lagSeconds).filter((value) => value !== null);
  const worst = lags.length === 0 ? null : Math.max(...lags);
  tiles.lag.show(lag(worst), 'largest, commit to commit', lagTone(worst) ?? 'ok');
  const sum = (field) => flows.reduce((total, flow) => total + (flow[field] ?? 0), 0);
  tiles.rows.show(count(sum('rowsPerSecond')), 'rows a second applied');
  tiles.drift.show(count(sum('drift')), 'rows differ', sum('drift') > 0 ? 'bad' : 'ok');
  tiles.quarantine.show(count(sum('quarantined')), 'changes wait', sum('quarantined') > 0 ? 'warn' : 'ok');
  const provable = flows.filter(({ name }) => compared.has(name));
  const proofs = provable.map((flow) => flow.verifiedAt).filter((value) => value !== undefined);
  const missing = provable.length - proofs.length;
  if (provable.length === 0) tiles.proof.show('–', 'nothing is compared');
  else
    tiles.proof.show(
      proofs.length === 0 ? 'never' : ago(proofs.sort()[0]),
      missing === 0 ? 'oldest proof of equality' : `${missing} of ${provable.length} not proven equal`,
      missing === 0 ? 'ok' : 'warn',
    );
}

function alertLine({ severity }) {
  const [summary, note] = [h('strong', {}), h('span', {})];
  const element = h('li', { 'data-tone': severity === 'critical' ? 'bad' : 'warn' }, summary, note);
  element.show = (alert) => {
    setText(summary, alert.summary);
    setText(note, `${alert.alert} · ${alert.severity} · began ${ago(alert.since)} · ${alert.runbook}`);
  };
  return element;
}

export function createOverview({ meta }) {
  // Those that bring records to other systems are not compared.
  const compared = new Set(meta.flows.filter((flow) => flow.compared).map(({ name }) => name));
  const tiles = {
    health: tile('Running', '#/overview'),
    lag: tile('Lag', '#/overview'),
    rows: tile('Throughput', '#/overview'),
    drift: tile('Drift', '#/drift'),
    quarantine: tile('Quarantine', '#/quarantine'),
    proof: tile('Verified', '#/drift'),
  };
  const alerts = h('ul', { class: 'alerts', 'aria-label': 'Alerts that stand' });
  const map = h('div', { class: 'map' }, h('p', { class: 'wait' }, 'Asking the installation…'));
  const processes = h('tbody', {});
  const element = h(
    'div',
    { class: 'overview' },
    h('div', { class: 'tiles' }, Object.values(tiles)),
    alerts,
    map,
    h(
      'section',
      { class: 'panel', 'aria-labelledby': 'processes' },
      h('h2', { id: 'processes' }, 'Processes'),
      h(
        'div',
        { class: 'scroll', tabindex: 0, role: 'region', 'aria-label': 'Table of processes' },
        h(
          'table',
          {},
          h(
            'thead',
            {},
            h(
              'tr',
              {},
              ['Process', 'Since', 'Stages'].map((title) => h('th', { scope: 'col' }, title)),
            ),
          ),
          processes,
        ),
      ),
    ),
  );
  let shape;
  let lanes = [];
  let standing;
  let shownAlerts = [];
  const update = (overview) => {
    const names = JSON.stringify([overview.sources.map(({ name }) => name), overview.flows.map(({ name }) => name)]);
    if (names !== shape) {
      shape = names;
      lanes = overview.sources.map((source) =>
        lane(
          source,
          overview.streams.find((stream) => stream.source === source.name),
          overview.flows.filter((flow) => flow.source === source.name),
          overview.sources.filter(({ reads }) => reads?.includes(source.name)),
          compared,
        ),
      );
      map.replaceChildren(...lanes);
    }
    showTiles(tiles, overview, compared);
    for (const each of lanes) each.update(overview);
    const now = JSON.stringify(overview.alerts.map(({ alert, labels }) => [alert, labels]));
    if (now !== standing) {
      standing = now;
      shownAlerts = overview.alerts.map(alertLine);
      alerts.replaceChildren(...shownAlerts);
    }
    // What they say changes while they stand: how long, and how much.
    overview.alerts.forEach((alert, index) => shownAlerts[index].show(alert));
    processes.replaceChildren(
      ...overview.processes.map(({ process, startedAt, stages }) =>
        h(
          'tr',
          {},
          h('td', { class: 'mono' }, process),
          h('td', { class: 'when' }, ago(startedAt)),
          h('td', {}, stages.join(', ')),
        ),
      ),
    );
  };
  return { element, update };
}
