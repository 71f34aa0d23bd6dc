/** Reading of whole tables, as far as it is; and the configuration without its secrets. */
import { get, onLockChange, post, unlocked } from './api.mjs';
import { empty, h, pill, setText, toast } from './dom.mjs';
import { count } from './format.mjs';

function sourcePanel(meta, source) {
  const progress = h('progress', { max: 1, value: 0, 'aria-label': `Tables of ${source} that are read` });
  const text = h('p', { class: 'count', role: 'status' });
  const rows = h('tbody', {});
  const tables = h('input', {
    type: 'text',
    placeholder: 'all tables, or schema.table, schema.table',
    'aria-label': `Tables of ${source}`,
  });
  const read = h('button', { type: 'submit' }, 'Read again');
  const cancel = h('button', { type: 'button', class: 'quiet' }, 'Stop');
  const send = async (body) => {
    try {
      toast((await post(`sources/${encodeURIComponent(source)}/snapshot`, body)).done);
    } catch (error) {
      toast(error.message, 'bad');
    }
  };
  cancel.addEventListener('click', () => void send({ cancel: true }));
  const submit = (event) => {
    event.preventDefault();
    void send({ tables: tables.value.split(/[\s,]+/).filter((each) => each !== '') });
  };
  const element = h(
    'section',
    { class: 'panel', 'aria-label': source },
    h('div', { class: 'toolbar' }, h('h2', {}, source), text, h('span', { class: 'gap' })),
    progress,
    h(
      'div',
      { class: 'scroll', tabindex: 0, role: 'region', 'aria-label': `Progress of ${source}` },
      h(
        'table',
        {},
        h(
          'thead',
          {},
          h(
            'tr',
            {},
            ['Table', 'State', 'Rows read'].map((title) => h('th', { scope: 'col' }, title)),
          ),
        ),
        rows,
      ),
    ),
    meta.actions ? h('form', { class: 'toolbar', onsubmit: submit }, tables, read, cancel) : undefined,
  );
  const refresh = () => {
    const may = unlocked();
    for (const each of [tables, read, cancel]) each.disabled = !may;
  };
  refresh();
  let last;
  return {
    element,
    refresh,
    update(overview) {
      const view = overview.snapshots.find((each) => each.source === source);
      const shape = JSON.stringify(view ?? null);
      if (shape === last) return;
      last = shape;
      const all = view?.tables ?? [];
      const done = all.filter(({ state }) => state === 'done').length;
      progress.max = Math.max(1, all.length);
      progress.value = done;
      progress.hidden = all.length === 0;
      setText(
        text,
        view === undefined
          ? 'nothing was read yet'
          : view.asked
            ? 'asked for; the capture takes it up'
            : `${done} of ${all.length} tables read`,
      );
      rows.replaceChildren(
        ...all.map(({ table, state, rows: read }) => {
          const mark = pill(state === 'done' ? 'here' : state === 'running' ? 'snapshot' : 'standby');
          setText(mark.lastChild, state);
          return h('tr', {}, h('td', {}, table), h('td', {}, mark), h('td', { class: 'number' }, count(read)));
        }),
      );
    },
  };
}

export function createSnapshots({ meta }) {
  if (meta.sources.length === 0) return { element: empty('No sources', 'There is nothing to read.') };
  const panels = meta.sources.map((source) => sourcePanel(meta, source));
  const unlisten = onLockChange(() => panels.forEach((panel) => panel.refresh()));
  return {
    element: h(
      'div',
      { class: 'stack' },
      panels.map((panel) => panel.element),
    ),
    update: (overview) => panels.forEach((panel) => panel.update(overview)),
    close: unlisten,
  };
}

export function createConfiguration() {
  const text = h('pre', { class: 'panel mono', tabindex: 0, 'aria-label': 'Configuration' }, 'Loading…');
  get('configuration').then(
    ({ configuration }) => setText(text, JSON.stringify(configuration, undefined, 2)),
    (error) => toast(error.message, 'bad'),
  );
  return {
    element: h('div', { class: 'stack' }, h('p', { class: 'hint' }, 'As this process read it, without secrets.'), text),
  };
}
