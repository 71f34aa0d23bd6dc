/** Rows that differ between source and target, and both of them side by side. */
import { get, onLockChange, post, unlocked } from './api.mjs';
import { chooser, empty, h, setText, toast } from './dom.mjs';
import { ago, at, count, keyText } from './format.mjs';
import { shownValue } from './quarantine-row.mjs';

const PAGE = 100;
const KINDS = {
  missing: 'missing in the target',
  extra: 'only in the target',
  different: 'different',
};

function readWhen(note, readAt) {
  if (note !== undefined) return '';
  return readAt === undefined ? ' Both rows were read now.' : ' Both rows are as they were then.';
}

function sideBySide(pair, close) {
  const { finding, columns, sourceRow, targetRow, note, readAt } = pair;
  const differing = columns.filter(({ differs }) => differs).length;
  return [
    h(
      'div',
      { class: 'sheet-head' },
      h('h2', {}, finding.table, ' ', h('span', { class: 'mono' }, keyText(finding.key))),
      h('button', { type: 'button', class: 'quiet', 'aria-label': 'Close', onclick: close }, '✕'),
    ),
    h(
      'div',
      { class: 'reason', 'data-tone': 'bad' },
      h('strong', {}, KINDS[finding.kind] ?? finding.kind),
      h('p', {}, `Confirmed ${at(finding.confirmedAt)}.${readWhen(note, readAt)}`),
    ),
    note === undefined ? undefined : h('p', { class: 'hint' }, note),
    columns.length === 0
      ? undefined
      : h(
          'div',
          { class: 'scroll', tabindex: 0, role: 'region', 'aria-label': 'Both rows' },
          h(
            'table',
            { class: 'values pair' },
            h('caption', {}, sourceRow && targetRow ? `${differing} of ${columns.length} columns differ` : ''),
            h(
              'thead',
              {},
              h(
                'tr',
                {},
                h('th', { scope: 'col' }, 'Column'),
                h('th', { scope: 'col' }, sourceRow || note !== undefined ? 'Source' : 'Source: no such row'),
                h('th', { scope: 'col' }, targetRow ? 'Target' : 'Target: no such row'),
              ),
            ),
            h(
              'tbody',
              {},
              columns.map(({ name, key, source, target, differs }) =>
                h(
                  'tr',
                  { class: `${differs ? 'differs' : ''} ${key ? 'of-key' : ''}` },
                  h(
                    'th',
                    { scope: 'row' },
                    h('span', { class: 'mono' }, name),
                    h('span', { class: 'type' }, differs ? '≠ differs' : key ? 'key' : ''),
                  ),
                  h('td', {}, sourceRow ? shownValue(source) : ''),
                  h('td', {}, targetRow ? shownValue(target) : ''),
                ),
              ),
            ),
          ),
        ),
  ];
}

const RUN_STATES = { running: 'began', interrupted: 'was interrupted' };

export function createDrift({ meta, argument }) {
  const flows = meta.flows.filter(({ compared }) => compared).map(({ name }) => name);
  if (flows.length === 0) return { element: empty('No flows', 'There is nothing to compare.') };
  const flow = flows.includes(argument) ? argument : flows[0];
  const base = `flows/${encodeURIComponent(flow)}`;
  const state = h('p', { class: 'count', role: 'status' });
  const tables = h('ul', { class: 'chips', 'aria-label': 'By table' });
  const rows = h('tbody', {});
  const more = h('button', { type: 'button', class: 'quiet', onclick: () => void load() }, 'Show more');
  const sheet = h('aside', { class: 'sheet', 'aria-label': 'Both rows', hidden: true, tabindex: -1 });
  const table = h(
    'div',
    { class: 'scroll findings', tabindex: 0, role: 'region', 'aria-label': 'Rows that differ' },
    h(
      'table',
      {},
      h(
        'thead',
        {},
        h(
          'tr',
          {},
          ['Table', 'Key', 'What', 'Found', ''].map((title) =>
            h(
              'th',
              { scope: 'col', class: title === 'Found' ? 'when' : '' },
              title === '' ? h('span', { class: 'hidden' }, 'Rows') : title,
            ),
          ),
        ),
      ),
      rows,
    ),
    more,
  );
  const nothing = empty('No drift', 'The latest comparison found no row that differs.');
  nothing.hidden = true;
  const work = h('div', { class: 'split', hidden: true }, table, sheet);
  const compare = h('button', { type: 'button', onclick: () => void verify(false) }, 'Compare now');
  const repair = h('button', { type: 'button', onclick: () => void verify(true) }, 'Compare and repair');
  let lastRun;
  let shown = 0;
  let busy = false;

  function refresh() {
    const may = meta.actions && unlocked();
    for (const button of [compare, repair]) {
      button.disabled = !may || busy;
      button.title = !meta.actions ? 'No token is configured' : may ? '' : 'Unlock first';
    }
    setText(compare, busy ? 'Comparing…' : 'Compare now');
  }

  async function verify(mend) {
    busy = true;
    refresh();
    try {
      toast((await post(`${base}/verify`, { repair: mend })).done);
      close();
      await load(true);
    } catch (error) {
      toast(error.remedy === undefined ? error.message : `${error.message} ${error.remedy}`, 'bad');
    } finally {
      busy = false;
      refresh();
    }
  }

  function tellRun() {
    const { finishedAt, startedAt, unresolved } = lastRun ?? {};
    setText(
      state,
      lastRun === undefined
        ? 'Never compared'
        : `Last comparison ${RUN_STATES[lastRun.state] ?? lastRun.state} ${ago(finishedAt ?? startedAt)}${unresolved ? '; some rows are not proven' : ''}`,
    );
  }

  function close() {
    const wasIn = sheet.contains(document.activeElement);
    sheet.hidden = true;
    sheet.replaceChildren();
    // Whoever goes through the rows by keyboard goes on there.
    if (wasIn) rows.querySelector('.active button')?.focus({ preventScroll: innerWidth >= 1000 });
    for (const row of rows.children) row.classList.remove('active');
  }

  async function open(finding, row) {
    try {
      const pair = await get(`${base}/drift/${finding.id}`);
      close();
      row.classList.add('active');
      sheet.replaceChildren(...sideBySide(pair, close).filter((each) => each !== undefined));
      sheet.hidden = false;
      sheet.focus({ preventScroll: innerWidth >= 1000 });
      if (innerWidth < 1000) sheet.scrollIntoView({ block: 'start' });
    } catch (error) {
      toast(error.status === 404 ? 'This is not open any more.' : error.message, 'bad');
    }
  }

  /** The next page; or, afresh, all that was shown before: the old rows stay until the new ones are here. */
  async function load(afresh = false) {
    try {
      const range = afresh ? { offset: 0, limit: Math.max(PAGE, shown) } : { offset: shown, limit: PAGE };
      const view = await get(`${base}/drift?${new URLSearchParams(range)}`);
      shown = range.offset + view.findings.length;
      if (afresh) rows.replaceChildren();
      ({ lastRun } = view);
      tellRun();
      tables.replaceChildren(
        ...view.tables.map((each) =>
          h(
            'li',
            { 'data-tone': 'bad' },
            h('strong', {}, count(each.rows)),
            ` ${KINDS[each.kind] ?? each.kind} · ${each.table}`,
          ),
        ),
        ...(lastRun?.leftOut ?? []).map(({ what, why, records }) =>
          h(
            'li',
            { title: why },
            h('strong', {}, count(records)),
            what === '*' ? ` not compared: ${why}` : ` without ${what}: ${why}`,
          ),
        ),
      );
      rows.append(
        ...view.findings.map((finding) => {
          const row = h(
            'tr',
            {},
            h('td', {}, finding.table),
            h(
              'td',
              { class: 'mono' },
              finding.key === null ? `${finding.copies} rows without a key` : keyText(finding.key),
            ),
            h('td', {}, KINDS[finding.kind] ?? finding.kind),
            h('td', { class: 'when' }, ago(finding.foundAt)),
            h(
              'td',
              {},
              h(
                'button',
                {
                  type: 'button',
                  class: 'quiet',
                  'aria-label': `Compare the rows of ${finding.table} ${keyText(finding.key)}`,
                  onclick: () => void open(finding, row),
                },
                'Compare',
              ),
            ),
          );
          return row;
        }),
      );
      more.hidden = shown >= view.total;
      nothing.hidden = view.total > 0;
      work.hidden = view.total === 0;
      if (lastRun === undefined) {
        setText(nothing.firstChild, 'Not compared yet');
        setText(nothing.lastChild, 'Configure monitoring.verify.every, run `waybill verify`, or compare now.');
      }
    } catch (error) {
      toast(error.message, 'bad');
    }
  }

  const unlisten = onLockChange(refresh);
  refresh();
  void load();
  sheet.addEventListener('keydown', (event) => {
    if (event.key === 'Escape') close();
  });
  let known;
  return {
    element: h(
      'div',
      { class: 'drift' },
      h(
        'div',
        { class: 'toolbar' },
        chooser(
          'Flow',
          flows.map((name) => [name, name]),
          flow,
          (name) => (location.hash = `#/drift/${encodeURIComponent(name)}`),
        ),
        state,
        h('span', { class: 'gap' }),
        compare,
        repair,
      ),
      tables,
      nothing,
      work,
    ),
    update(overview) {
      const now = overview.flows.find((each) => each.name === flow);
      const mark = `${now?.drift} ${now?.verifiedAt}`;
      if (known !== undefined && mark !== known && sheet.hidden) void load(true);
      known = mark;
      if (lastRun !== undefined) tellRun();
    },
    close: unlisten,
  };
}
