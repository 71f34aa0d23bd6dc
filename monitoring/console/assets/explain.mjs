/** Where each value of a record came from, who decided, and what lost. */
import { get } from './api.mjs';
import { h, setText } from './dom.mjs';
import { at } from './format.mjs';
import { shownValue } from './quarantine-row.mjs';

function origin({ source, table, key, position, time }) {
  if (source === undefined) return h('span', { class: 'none' }, '–');
  return h(
    'div',
    { class: 'origin' },
    h('span', {}, [source, table].filter((each) => each !== undefined && each !== '').join(' · ')),
    h('span', { class: 'mono' }, key ?? ''),
    h('span', { class: 'mono type' }, position ?? ''),
    h('span', { class: 'type' }, time === undefined || time === '' ? '' : at(time)),
  );
}

function rows({ field, value, decided, rule, origin: from, merged, lost }) {
  const saidBy = (name, said) =>
    h(
      'tr',
      { class: name === 'not applied' ? 'lost' : 'merged' },
      h('th', { scope: 'row' }, h('span', { class: 'type' }, name)),
      h('td', {}, shownValue(said.value)),
      h('td', {}, ''),
      h('td', {}, origin(said.origin)),
    );
  return [
    h(
      'tr',
      {},
      h('th', { scope: 'row' }, h('span', { class: 'mono' }, field)),
      h('td', {}, shownValue(value)),
      h('td', {}, decided, h('span', { class: 'type' }, rule)),
      h('td', {}, origin(from)),
    ),
    ...merged.map((part) => saidBy('counts as well', part)),
    ...lost.map((loser) => saidBy('not applied', loser)),
  ];
}

export function createExplain({ meta }) {
  const entity = h(
    'select',
    {},
    meta.entities.map((name) => h('option', { value: name }, name)),
  );
  const key = h('input', {
    type: 'text',
    required: true,
    placeholder: 'sku=A-1 location=WH/Stock, or the values in order',
  });
  const result = h('div', { class: 'result' });
  const problem = h('p', { class: 'problem', role: 'status' });
  async function submit(event) {
    event.preventDefault();
    const query = new URLSearchParams({ entity: entity.value });
    for (const part of key.value.trim().split(/\s+/)) query.append('key', part);
    setText(problem, '');
    result.replaceChildren();
    try {
      const { flow, fields } = await get(`explain?${query}`);
      result.replaceChildren(
        h(
          'div',
          { class: 'panel scroll', tabindex: 0, role: 'region', 'aria-label': 'Where the values came from' },
          h(
            'table',
            { class: 'values' },
            h('caption', {}, `${entity.value}, made by flow ${flow}`),
            h(
              'thead',
              {},
              h(
                'tr',
                {},
                ['Field', 'Value', 'Decided by', 'From'].map((title) => h('th', { scope: 'col' }, title)),
              ),
            ),
            h('tbody', {}, fields.flatMap(rows)),
          ),
        ),
      );
    } catch (error) {
      setText(problem, error.status === 404 ? 'There is no such record.' : error.message);
    }
  }
  return {
    element: h(
      'div',
      { class: 'stack' },
      h(
        'form',
        { class: 'toolbar', onsubmit: (event) => void submit(event) },
        h('label', { class: 'field' }, h('span', {}, 'Entity'), entity),
        h('label', { class: 'field grow' }, h('span', {}, 'Key'), key),
        h('button', { type: 'submit', class: 'primary' }, 'Explain'),
      ),
      problem,
      result,
    ),
  };
}
