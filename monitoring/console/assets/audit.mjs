/** Who did what, newest first; and whether anybody changed the log. */
import { get } from './api.mjs';
import { chooser, empty, h, setText, toast } from './dom.mjs';
import { at } from './format.mjs';

const PAGE = 100;

export function createAudit({ meta, argument }) {
  if (meta.targets.length === 0) return { element: empty('No targets', 'The audit log is kept in targets.') };
  const target = meta.targets.includes(argument) ? argument : meta.targets[0];
  const base = `targets/${encodeURIComponent(target)}/audit`;
  const result = h('p', { class: 'count', role: 'status' });
  const list = h('ol', { class: 'lines' });
  const more = h('button', { type: 'button', class: 'quiet', onclick: () => void load() }, 'Older');
  const check = h('button', { type: 'button', onclick: () => void verify() }, 'Check the chain');
  let oldest;
  let newest = 0;
  let looking = false;

  function line({ id, at: when, actor, action, subject, detail, hash }) {
    return h(
      'li',
      {},
      h('time', { datetime: when }, at(when)),
      h('span', { class: 'tag' }, action),
      h('span', { class: 'subject' }, subject),
      h('span', { class: 'actor' }, actor),
      h(
        'details',
        {},
        h('summary', {}, `Entry ${id}`),
        h('pre', { class: 'mono', tabindex: 0 }, JSON.stringify(detail, undefined, 2)),
        h('p', { class: 'mono hash' }, hash),
      ),
    );
  }

  async function load() {
    try {
      const query = new URLSearchParams({ limit: PAGE, ...(oldest === undefined ? {} : { before: oldest }) });
      const { lines } = await get(`${base}?${query}`);
      list.append(...lines.map(line));
      oldest = lines.at(-1)?.id ?? oldest;
      newest = Math.max(newest, lines[0]?.id ?? 0);
      more.hidden = lines.length < PAGE;
      if (list.childElementCount === 0) list.replaceWith(empty('No entries', 'Nothing was written to this log yet.'));
    } catch (error) {
      toast(error.message, 'bad');
    }
  }

  /** What was written meanwhile, above the rest. */
  async function catchUp() {
    if (looking || newest === 0) return;
    looking = true;
    try {
      const { lines } = await get(`${base}?${new URLSearchParams({ limit: PAGE })}`);
      const fresh = lines.filter(({ id }) => id > newest);
      newest = fresh[0]?.id ?? newest;
      list.prepend(...fresh.map(line));
    } catch (error) {
      setText(result, error.message);
    } finally {
      looking = false;
    }
  }

  async function verify() {
    setText(result, 'Checking…');
    try {
      const { entries, problems } = await get(`${base}/check`);
      result.dataset.tone = problems.length === 0 ? 'ok' : 'bad';
      setText(
        result,
        problems.length === 0
          ? `${entries.toLocaleString('en')} entries, the chain is whole`
          : `Broken: ${problems.slice(0, 3).join('; ')}`,
      );
    } catch (error) {
      setText(result, error.message);
    }
  }

  void load();
  return {
    update: () => void catchUp(),
    element: h(
      'div',
      { class: 'stack' },
      h(
        'div',
        { class: 'toolbar' },
        chooser(
          'Target',
          meta.targets.map((name) => [name, name]),
          target,
          (name) => (location.hash = `#/audit/${encodeURIComponent(name)}`),
        ),
        result,
        h('span', { class: 'gap' }),
        check,
      ),
      h('div', { class: 'panel' }, list, more),
    ),
  };
}
