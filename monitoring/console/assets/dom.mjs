/** Small means to make elements. Text only ever becomes text: there is no markup from data. */

const SVG = 'http://www.w3.org/2000/svg';

function put(element, props, children) {
  for (const [name, value] of Object.entries(props ?? {})) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith('on')) element.addEventListener(name.slice(2), value);
    else if (name === 'value' || name === 'checked' || name === 'disabled' || name === 'readOnly')
      element[name] = value;
    else element.setAttribute(name, value === true ? '' : value);
  }
  element.append(...children.flat().filter((child) => child !== undefined && child !== null && child !== false));
  return element;
}

/** An element: `h('button', { class: 'quiet', onclick: f }, 'Text', child)`. */
export function h(tag, props, ...children) {
  return put(document.createElement(tag), props, children);
}

export function svg(tag, props, ...children) {
  return put(document.createElementNS(SVG, tag), props, children);
}

/** Sets text only where it changed, so that selections and screen readers are left alone. */
export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

const TONES = {
  streaming: 'ok',
  applying: 'ok',
  idle: 'calm',
  snapshot: 'info',
  standby: 'calm',
  starting: 'warn',
  waiting: 'warn',
  here: 'ok',
  firing: 'bad',
};
const MARKS = { ok: '●', calm: '○', info: '◆', warn: '▲', bad: '■' };
const WORDS = {
  silent: 'no process reports',
  slot_missing: 'slot missing',
  slot_lost: 'slot lost',
  here: 'stored',
};

export function toneOf(state) {
  return TONES[state] ?? 'bad';
}

/** A state as a word, a mark and a colour. */
export function pill(state) {
  const mark = h('span', { class: 'mark', 'aria-hidden': 'true' });
  const word = h('span', {});
  const element = h('span', { class: 'pill' }, mark, word);
  element.show = (next) => {
    element.dataset.tone = toneOf(next);
    setText(mark, MARKS[toneOf(next)]);
    setText(word, WORDS[next] ?? next);
  };
  element.show(state);
  return element;
}

const WIDTH = 120;
const HEIGHT = 30;

/** A line of the last ten minutes; gaps where nothing was known. `label` is read out instead of it. */
export function sparkline(label) {
  const area = svg('path', { class: 'area' });
  const line = svg('path', { class: 'line' });
  const element = svg(
    'svg',
    {
      class: 'spark',
      viewBox: `0 0 ${WIDTH} ${HEIGHT}`,
      preserveAspectRatio: 'none',
      role: 'img',
      'aria-label': label,
    },
    svg('line', { class: 'base', x1: 0, y1: HEIGHT - 1, x2: WIDTH, y2: HEIGHT - 1 }),
    area,
    line,
  );
  element.show = (values, text) => {
    const known = values.filter((value) => value !== null);
    const top = Math.max(...known, 1e-9);
    const step = WIDTH / 119;
    const from = WIDTH - (values.length - 1) * step;
    let path = '';
    let fill = '';
    let open;
    const close = (x) => {
      if (open !== undefined) fill += `L${x.toFixed(1)} ${HEIGHT}L${open.toFixed(1)} ${HEIGHT}Z`;
      open = undefined;
    };
    let last = from;
    values.forEach((value, index) => {
      const x = from + index * step;
      if (value === null) close(last);
      else {
        const y = (HEIGHT - 2 - (value / top) * (HEIGHT - 5)).toFixed(1);
        const move = open === undefined ? 'M' : 'L';
        path += `${move}${x.toFixed(1)} ${y}`;
        fill += `${move}${x.toFixed(1)} ${y}`;
        open ??= x;
      }
      last = x;
    });
    close(last);
    line.setAttribute('d', path);
    area.setAttribute('d', fill);
    element.setAttribute('aria-label', `${label}: ${text}`);
  };
  return element;
}

const toasts = () => document.getElementById('toasts');

/** Says what happened, for six seconds; what went wrong, until it is dismissed. */
export function toast(text, tone = 'ok') {
  const element = h(
    'div',
    { class: 'toast', 'data-tone': tone },
    h('span', {}, text),
    h('button', { type: 'button', class: 'quiet', 'aria-label': 'Dismiss', onclick: () => element.remove() }, '✕'),
  );
  toasts().append(element);
  if (tone === 'ok') setTimeout(() => element.remove(), 6000);
}

/** Opens the one dialog with this content; resolves with what `close` was called with, or undefined. */
export function ask(title, build) {
  const dialog = document.getElementById('dialog');
  return new Promise((resolve) => {
    let result;
    const close = (value) => {
      result = value;
      dialog.close();
    };
    dialog.replaceChildren(h('h2', { id: 'dialog-title' }, title), build(close));
    dialog.addEventListener('close', () => resolve(result), { once: true });
    dialog.showModal();
  });
}

/** A select of names; one that has only one name is its text. */
export function chooser(label, names, chosen, onchange) {
  const select = h(
    'select',
    { onchange: () => onchange(select.value) },
    names.map(([value, text]) => h('option', { value }, text)),
  );
  select.value = chosen;
  return h('label', { class: 'field' }, h('span', {}, label), select);
}

/** A region in which nothing is to be shown, and why. */
export function empty(title, text) {
  return h('div', { class: 'empty' }, h('p', { class: 'title' }, title), h('p', {}, text));
}
