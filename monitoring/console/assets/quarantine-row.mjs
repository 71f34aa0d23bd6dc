/** One quarantined change: why it was refused, its values before and after, and editing them. */
import { get, onLockChange, post, unlocked } from './api.mjs';
import { h, setText, toast } from './dom.mjs';
import { at, bytes, keyText, visible } from './format.mjs';

function isText(value) {
  return typeof value === 'string';
}

/** A value that is only looked at. */
export function shownValue(value, binary) {
  if (value === undefined) return h('span', { class: 'none' }, '');
  if (value === null) return h('span', { class: 'null' }, 'NULL');
  if (value.hidden) return h('span', { class: 'null', title: 'The values of this column are not shown' }, 'hidden');
  if (value.unchanged) return h('span', { class: 'null' }, 'unchanged');
  if (binary) return h('span', { class: 'mono' }, hex(value));
  return h('span', { class: 'mono' }, value === '' ? h('span', { class: 'null' }, 'empty text') : visible(value));
}

/** The first bytes of a binary value. */
function hex(base64) {
  const raw = atob(base64);
  const first = Array.from(raw.slice(0, 64), (char) => char.charCodeAt(0).toString(16).padStart(2, '0'));
  return `${first.join(' ')}${raw.length > 64 ? ' …' : ''} (${bytes(raw.length)})`;
}

/** A field for a value; `read()` gives undefined while it is as it was. */
function editor(column, changed) {
  const start = column.after ?? null;
  const text = h('textarea', {
    rows: 1,
    'aria-label': `New value of ${column.name}`,
    value: isText(start) ? start : '',
    spellcheck: 'false',
  });
  // A field has line feeds alone: what it shows at first stands for the value as it is.
  const first = text.value;
  const none = h('input', { type: 'checkbox', checked: start === null, disabled: column.notNull });
  const fit = () => {
    text.style.height = 'auto';
    text.style.height = `${Math.min(160, text.scrollHeight + 2)}px`;
  };
  const refresh = () => {
    text.disabled = none.checked || !unlocked();
    none.disabled = column.notNull || !unlocked();
  };
  text.addEventListener('input', () => {
    fit();
    changed();
  });
  none.addEventListener('change', () => {
    refresh();
    changed();
  });
  refresh();
  return {
    element: h('div', { class: 'edit' }, text, h('label', {}, none, ' NULL')),
    refresh,
    fit,
    read() {
      if (none.checked) return start === null ? undefined : null;
      if (isText(start) && text.value === first) return undefined;
      return isText(start) && /^(?:[^\r\n]|\r\n)*\r\n/.test(start) ? text.value.replaceAll('\n', '\r\n') : text.value;
    },
  };
}

/** `left()` is told when the open change is closed by whoever was in it. */
export function createRow({ base, discard, changed, left }) {
  const element = h('aside', { class: 'sheet', 'aria-label': 'The change that is open', hidden: true, tabindex: -1 });
  let editors = new Map();
  let buttons;
  /** The change that is open, or is being opened: whoever comes back later with another one is too late. */
  let current;
  const unlisten = onLockChange(() => refresh());

  function edits() {
    return Object.fromEntries(
      [...editors].map(([name, each]) => [name, each.read()]).filter(([, value]) => value !== undefined),
    );
  }

  function refresh() {
    if (buttons === undefined) return;
    for (const each of editors.values()) each.refresh();
    const may = unlocked();
    const edited = Object.keys(edits()).length > 0;
    buttons.save.disabled = !may || !edited;
    setText(buttons.replay, edited ? 'Save and replay' : 'Replay');
    buttons.replay.disabled = !may;
    buttons.discard.disabled = !may;
    buttons.hint.hidden = may;
  }

  async function act(path, body) {
    try {
      const result = await post(path, body);
      const refused = result.failed ?? [];
      toast(
        refused.length === 0 ? result.done : `${result.done}: ${refused[0].message}`,
        refused.length === 0 ? 'ok' : 'bad',
      );
      await changed();
      return refused.length === 0;
    } catch (error) {
      toast(error.remedy === undefined ? error.message : `${error.message} ${error.remedy}`, 'bad');
      return false;
    }
  }

  function show(detail) {
    const editable = new Map();
    const rows = detail.columns.map((column) => {
      const canEdit = 'after' in column && !column.key && (column.after === null || isText(column.after));
      const field = canEdit ? editor(column, refresh) : undefined;
      if (field !== undefined) editable.set(column.name, field);
      return h(
        'tr',
        { class: column.key ? 'of-key' : '' },
        h(
          'th',
          { scope: 'row' },
          h('span', { class: 'mono' }, column.name),
          h('span', { class: 'type' }, column.type, column.key ? ' · key' : ''),
        ),
        'before' in column ? h('td', {}, shownValue(column.before, column.binary)) : undefined,
        'after' in column ? h('td', {}, field?.element ?? shownValue(column.after, column.binary)) : undefined,
      );
    });
    editors = editable;
    const [first = {}] = detail.columns;
    const head = ['Column', ...('before' in first ? ['Before'] : []), ...('after' in first ? ['After'] : [])];
    const save = h(
      'button',
      {
        type: 'button',
        onclick: () =>
          void act(`${base}/${detail.id}/edit`, { set: edits() }).then(
            (good) => good && current === detail.id && open(detail.id),
          ),
      },
      'Save',
    );
    const replay = h('button', { type: 'button', class: 'primary' }, 'Replay');
    replay.addEventListener('click', async () => {
      const set = edits();
      const edited = Object.keys(set).length > 0;
      const good = edited
        ? await act(`${base}/${detail.id}/edit`, { set, replay: true })
        : await act(`${base}/replay`, { ids: [detail.id] });
      if (current !== detail.id) return;
      if (good) close();
      else await open(detail.id);
    });
    const drop = h('button', { type: 'button', class: 'danger', onclick: () => discard(detail.id) }, 'Discard');
    const hint = h('p', { class: 'hint' }, 'Unlock to edit, replay or discard.');
    buttons = { save, replay, discard: drop, hint };
    element.replaceChildren(
      h(
        'div',
        { class: 'sheet-head' },
        h('h2', {}, detail.table, ' ', h('span', { class: 'mono' }, keyText(detail.key))),
        h('button', { type: 'button', class: 'quiet', 'aria-label': 'Close', onclick: close }, '✕'),
      ),
      h(
        'div',
        { class: 'reason', 'data-tone': detail.reason === 'held' ? 'calm' : 'warn' },
        h('strong', {}, detail.reason, detail.sqlState === null ? '' : ` (SQLSTATE ${detail.sqlState})`),
        h('p', {}, detail.message ?? 'It waits behind an earlier change of the same key, which was refused.'),
      ),
      h(
        'dl',
        { class: 'facts' },
        [
          ['Operation', detail.op],
          ['Since', at(detail.createdAt)],
          ['Into', detail.target],
          ['Size', bytes(detail.bytes)],
          ['Position', detail.position],
        ].map(([name, value]) =>
          h('div', {}, h('dt', {}, name), h('dd', { class: name === 'Position' ? 'mono' : '' }, value)),
        ),
      ),
      h(
        'div',
        { class: 'scroll', tabindex: 0, role: 'region', 'aria-label': 'Values' },
        h(
          'table',
          { class: 'values' },
          h(
            'thead',
            {},
            h(
              'tr',
              {},
              head.map((title) => h('th', { scope: 'col' }, title)),
            ),
          ),
          h('tbody', {}, rows),
        ),
      ),
      hint,
      h('div', { class: 'buttons' }, drop, h('span', { class: 'gap' }), save, replay),
    );
    refresh();
    element.hidden = false;
    for (const each of editors.values()) each.fit();
  }

  async function open(id) {
    current = id;
    try {
      const detail = await get(`${base}/${id}`);
      if (current !== id) return;
      show(detail);
      element.focus({ preventScroll: innerWidth >= 1000 });
      if (innerWidth < 1000) element.scrollIntoView({ block: 'start' });
    } catch (error) {
      if (current === id) close();
      if (error.status !== 404) toast(error.message, 'bad');
    }
  }

  function close() {
    current = undefined;
    const wasIn = element.contains(document.activeElement);
    element.hidden = true;
    buttons = undefined;
    editors = new Map();
    element.replaceChildren();
    if (wasIn) left();
  }

  element.addEventListener('keydown', (event) => {
    if (event.key === 'Escape') close();
  });
  return {
    element,
    open: (id) => void open(id),
    close,
    dispose: unlisten,
  };
}
