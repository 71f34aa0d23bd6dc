/** The exception inbox: the changes that a target refused and what waits behind them. */
import { get, onLockChange, post, unlocked } from './api.mjs';
import { ask, chooser, empty, h, setText, toast } from './dom.mjs';
import { ago, count, keyText } from './format.mjs';
import { createRow } from './quarantine-row.mjs';
import { VirtualList } from './virtual-list.mjs';

/** How often the list says anew how long ago its changes were refused. */
const AGE_MS = 20_000;

function confirmDiscard(number) {
  return ask('Discard for good?', (close) =>
    h(
      'div',
      {},
      h(
        'p',
        {},
        number === 1 ? 'This change is' : `These ${number.toLocaleString('en')} changes are`,
        ' deleted without being applied. The target keeps what it has; a comparison will show the difference.',
      ),
      h(
        'div',
        { class: 'buttons' },
        h('button', { type: 'button', class: 'quiet', onclick: () => close(false) }, 'Keep'),
        h('button', { type: 'button', class: 'danger', onclick: () => close(true) }, 'Discard'),
      ),
    ),
  );
}

export function createQuarantine({ meta, argument }) {
  const flows = meta.flows.map(({ name }) => name);
  if (flows.length === 0) return { element: empty('No flows', 'There is nothing that could refuse a row.') };
  const flow = flows.includes(argument) ? argument : flows[0];
  const base = `flows/${encodeURIComponent(flow)}/quarantine`;
  let reason = '';
  let reasons = '';
  /** Why the list could not be read when that was tried last: said once. */
  let trouble;

  const list = new VirtualList({
    label: 'Quarantined changes',
    async fetchPage(offset, limit) {
      const query = new URLSearchParams({ offset, limit, ...(reason === '' ? {} : { reason }) });
      try {
        const page = await get(`${base}?${query}`);
        trouble = undefined;
        showReasons(page.reasons);
        summary(page.total);
        return page;
      } catch (error) {
        if (trouble !== error.message) toast(error.message, 'bad');
        trouble = error.message;
        return undefined;
      }
    },
    make: () => ({
      check: h('span', { role: 'gridcell', class: 'check' }, h('span', { class: 'box', 'aria-hidden': 'true' })),
      what: h(
        'span',
        { role: 'gridcell', class: 'what' },
        h('span', { class: 'table' }),
        h('span', { class: 'key mono' }),
      ),
      op: h('span', { role: 'gridcell', class: 'op' }),
      reason: h(
        'span',
        { role: 'gridcell', class: 'why' },
        h('span', { class: 'tag' }),
        h('span', { class: 'message' }),
      ),
      when: h('span', { role: 'gridcell', class: 'when' }),
    }),
    fill(cells, entry) {
      const [table, key] = cells.what.children;
      const [tag, message] = cells.reason.children;
      setText(table, entry?.table ?? '…');
      setText(key, entry === undefined ? '' : keyText(entry.key));
      setText(cells.op, entry?.op ?? '');
      setText(tag, entry?.reason ?? '');
      tag.dataset.tone = entry?.reason === 'held' ? 'calm' : 'warn';
      setText(message, entry === undefined ? '' : (entry.message ?? 'waits behind an earlier change of its key'));
      setText(cells.when, entry === undefined ? '' : ago(entry.createdAt));
    },
    open: (entry) => row.open(entry.id),
    select: () => showSelection(),
  });

  const row = createRow({
    base,
    discard: (id) => discard([id]),
    changed: async () => {
      await list.reload();
    },
    // Whoever goes through the list by keyboard goes on there.
    left: () => list.element.focus({ preventScroll: innerWidth >= 1000 }),
  });

  const total = h('p', { class: 'count', role: 'status' });
  const reasonSelect = h('select', {
    onchange: () => {
      reason = reasonSelect.value;
      list.selected.clear();
      list.clear();
      showSelection();
      void list.reload();
    },
  });
  const selectAll = h('button', { type: 'button', class: 'quiet', onclick: () => void chooseAll() }, 'Select all');
  const replaySelected = h('button', { type: 'button', onclick: () => void replay([...list.selected]) }, 'Replay');
  const discardSelected = h(
    'button',
    { type: 'button', class: 'danger', onclick: () => void discard([...list.selected]) },
    'Discard',
  );
  const nothing = empty('Nothing is in quarantine', 'Every change that reached this target was taken.');
  nothing.hidden = true;
  const work = h('div', { class: 'split' }, list.element, row.element);

  function summary(number) {
    setText(total, number === 0 ? '' : `${count(number)} ${number === 1 ? 'change waits' : 'changes wait'}`);
    nothing.hidden = number > 0 || reason !== '';
    work.hidden = !nothing.hidden;
  }

  function showReasons(found) {
    const text = JSON.stringify(found);
    if (text === reasons) return;
    reasons = text;
    const sum = found.reduce((all, each) => all + each.count, 0);
    reasonSelect.replaceChildren(
      h('option', { value: '' }, `every reason (${sum.toLocaleString('en')})`),
      ...found.map((each) =>
        h('option', { value: each.reason }, `${each.reason} (${each.count.toLocaleString('en')})`),
      ),
    );
    reasonSelect.value = reason;
  }

  function showSelection() {
    const number = list.selected.size;
    setText(selectAll, number === 0 ? 'Select all' : `Clear ${number.toLocaleString('en')} selected`);
    const may = meta.actions && unlocked();
    replaySelected.disabled = discardSelected.disabled = !may || number === 0;
    for (const button of [replaySelected, discardSelected])
      button.title = !meta.actions ? 'No token is configured' : may ? '' : 'Unlock first';
  }

  async function chooseAll() {
    if (list.selected.size > 0) list.selected.clear();
    else
      for (let offset = 0; offset < list.total; offset += 500) {
        const query = new URLSearchParams({ offset, limit: 500, ...(reason === '' ? {} : { reason }) });
        for (const { id } of (await get(`${base}?${query}`)).items) list.selected.add(id);
      }
    showSelection();
    list.schedule();
  }

  async function act(path, ids) {
    try {
      const result = await post(path, { ids });
      toast(result.done, (result.failed ?? []).length === 0 ? 'ok' : 'warn');
      list.selected.clear();
      showSelection();
      row.close();
      await list.reload();
    } catch (error) {
      toast(error.message, 'bad');
    }
  }

  const replay = (ids) => act(`${base}/replay`, ids);
  async function discard(ids) {
    if (await confirmDiscard(ids.length)) await act(`${base}/discard`, ids);
  }

  const unlisten = onLockChange(() => showSelection());
  showSelection();
  void list.reload();
  const element = h(
    'div',
    { class: 'inbox' },
    h(
      'div',
      { class: 'toolbar' },
      chooser(
        'Flow',
        flows.map((name) => [name, name]),
        flow,
        (name) => (location.hash = `#/quarantine/${encodeURIComponent(name)}`),
      ),
      h('label', { class: 'field' }, h('span', {}, 'Reason'), reasonSelect),
      total,
      h('span', { class: 'gap' }),
      selectAll,
      replaySelected,
      discardSelected,
    ),
    nothing,
    work,
  );
  let known;
  let agedMs = performance.now();
  return {
    element,
    update(overview) {
      const now = overview.flows.find((each) => each.name === flow)?.quarantined;
      if (known !== undefined && now !== undefined && now !== known) void list.reload();
      else list.retry();
      known = now ?? known;
      if (performance.now() - agedMs < AGE_MS) return;
      agedMs = performance.now();
      list.refresh();
    },
    close() {
      list.close();
      row.dispose();
      unlisten();
    },
  };
}
