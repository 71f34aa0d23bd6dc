/** The page: which view is shown, what is live, and the lock. */
import { actor, get, lock, onLockChange, unlock, unlocked } from './api.mjs';
import { createAudit } from './audit.mjs';
import { ask, h, setText, toast } from './dom.mjs';
import { createDrift } from './drift.mjs';
import { createExplain } from './explain.mjs';
import { createOverview } from './overview.mjs';
import { createQuarantine } from './quarantine.mjs';
import { createConfiguration, createSnapshots } from './snapshots.mjs';

const main = document.getElementById('main');
const live = document.getElementById('live');
// Asked for together: the first look at the installation takes the longest.
const events = new EventSource('/api/events');
let latest;
let view;
events.addEventListener('overview', (event) => {
  latest = JSON.parse(event.data);
  if (view !== undefined) take();
});
events.addEventListener('trouble', (event) => connected('trouble', JSON.parse(event.data).message));
events.addEventListener('error', () => connected('lost', 'reconnecting'));

const meta = await get('meta');
document.title = `${String(meta.installation)} · Waybill`;
setText(document.getElementById('installation'), meta.installation);

const VIEWS = [
  { id: 'overview', title: 'Overview', create: createOverview },
  { id: 'drift', title: 'Drift', create: createDrift },
  { id: 'quarantine', title: 'Quarantine', create: createQuarantine },
  // Only where records are made is there anything to explain.
  ...(meta.entities.length === 0 ? [] : [{ id: 'explain', title: 'Explain', create: createExplain }]),
  { id: 'snapshots', title: 'Snapshots', create: createSnapshots },
  { id: 'audit', title: 'Audit', create: createAudit },
  { id: 'configuration', title: 'Configuration', create: createConfiguration },
];

const tabs = new Map();

for (const { id, title } of VIEWS) {
  const badge = h('span', { class: 'badge', hidden: true });
  const tab = h('a', { href: `#/${id}` }, title, badge);
  tabs.set(id, { tab, badge });
  document.getElementById('tabs').append(tab);
}

function show() {
  const [id, argument] = location.hash.replace(/^#\/?/, '').split('/');
  const found = VIEWS.find((each) => each.id === id) ?? VIEWS[0];
  view?.close?.();
  const { id: name, title, create } = found;
  for (const [each, { tab }] of tabs)
    if (each === name) tab.setAttribute('aria-current', 'page');
    else tab.removeAttribute('aria-current');
  tabs.get(name).tab.scrollIntoView({ block: 'nearest', inline: 'nearest' });
  view = create({ meta, argument: argument === undefined ? undefined : unescaped(argument) });
  const heading = h('h1', { class: name === 'overview' ? 'hidden' : '' }, title);
  main.replaceChildren(heading, view.element);
  if (latest !== undefined) take();
}

/** An address that is not written as it must be names nothing. */
function unescaped(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return undefined;
  }
}

function badge(id, value, tone) {
  const element = tabs.get(id).badge;
  element.hidden = value === 0;
  element.dataset.tone = tone;
  setText(element, value > 9999 ? '9,999+' : value.toLocaleString('en'));
}

function connected(state, text) {
  live.dataset.state = state;
  setText(live, text);
}

/** Shows the newest overview. */
function take() {
  connected('live', 'live');
  const sum = (field) => latest.flows.reduce((total, flow) => total + (flow[field] ?? 0), 0);
  badge('drift', sum('drift'), 'bad');
  badge('quarantine', sum('quarantined'), 'warn');
  view.update?.(latest);
}

const THEMES = { system: 'light', light: 'dark', dark: 'system' };
const SIGNS = { system: '◐', light: '☀', dark: '☾' };
const themeButton = document.getElementById('theme');
function showTheme() {
  const theme = document.documentElement.dataset.theme;
  setText(themeButton, SIGNS[theme]);
  themeButton.setAttribute('aria-label', `Theme: ${theme}. Change to ${THEMES[theme]}`);
  themeButton.title = `Theme: ${theme}`;
}
themeButton.addEventListener('click', () => {
  const next = THEMES[document.documentElement.dataset.theme];
  document.documentElement.dataset.theme = next;
  localStorage.setItem('waybill-theme', next);
  showTheme();
});
showTheme();

const unlockButton = document.getElementById('unlock');
function showLock() {
  unlockButton.hidden = !meta.actions;
  setText(unlockButton, unlocked() ? 'Lock' : 'Unlock');
  unlockButton.title = unlocked() ? `Acting as ${actor()}` : 'Actions need the token of this installation';
}
onLockChange(showLock);
showLock();

unlockButton.addEventListener('click', () => void toggleLock());

async function toggleLock() {
  if (unlocked()) {
    lock();
    return;
  }
  const done = await ask('Unlock actions', (close) => {
    const name = h('input', { type: 'text', autocomplete: 'username', required: true, maxlength: 80, value: actor() });
    const token = h('input', { type: 'password', autocomplete: 'current-password', required: true });
    const problem = h('p', { class: 'problem', role: 'alert' });
    const submit = async (event) => {
      event.preventDefault();
      try {
        await unlock(token.value, name.value.trim());
        close(true);
      } catch (error) {
        setText(problem, error.message);
        token.select();
      }
    };
    return h(
      'form',
      { onsubmit: submit },
      h('p', {}, 'Every action is written into the audit log with this name. The token stays in this tab.'),
      h('label', { class: 'field' }, h('span', {}, 'Your name'), name),
      h('label', { class: 'field' }, h('span', {}, 'Token'), token),
      problem,
      h(
        'div',
        { class: 'buttons' },
        h('button', { type: 'button', class: 'quiet', onclick: () => close(false) }, 'Cancel'),
        h('button', { type: 'submit', class: 'primary' }, 'Unlock'),
      ),
    );
  });
  if (done) toast('Unlocked');
}

addEventListener('hashchange', () => {
  show();
  main.focus({ preventScroll: true });
});
show();
