/**
 * A list of any length of which only the rows in sight exist. Rows have one height; pages of entries are fetched when
 * they come near. Keyboard: arrows, page keys, Home and End move; Enter opens; Space selects.
 */
import { h } from './dom.mjs';

const PAGE = 200;
const OVERSCAN = 10;

export class VirtualList {
  /**
   * `fill(cells, entry)` writes an entry (undefined: not here yet) into the cells that `make()` gave. `fetchPage` gives
   * undefined where it failed: what was shown stays, and `retry()` asks again.
   */
  constructor({ label, fetchPage, make, fill, open, select }) {
    this.fetchPage = fetchPage;
    this.make = make;
    this.fill = fill;
    this.open = open;
    this.select = select;
    this.total = 0;
    this.active = -1;
    this.selected = new Set();
    /** Entries by page, with the round in which they were asked for: those of earlier rounds are shown until new ones come. */
    this.pages = new Map();
    this.failed = false;
    /** The row that was clicked before its entry was here: it opens once that is, if nothing else was chosen since. */
    this.awaited = -1;
    this.rows = [];
    this.round = 0;
    this.space = h('div', { class: 'space', role: 'rowgroup' });
    this.element = h(
      'div',
      {
        class: 'list',
        role: 'grid',
        tabindex: 0,
        'aria-label': label,
        'aria-multiselectable': 'true',
        'aria-readonly': 'true',
      },
      this.space,
    );
    this.element.addEventListener('scroll', () => this.schedule(), { passive: true });
    this.element.addEventListener('keydown', (event) => this.key(event));
    this.space.addEventListener('click', (event) => this.click(event));
    this.watcher = new ResizeObserver(() => this.measure());
    this.watcher.observe(this.element);
  }

  measure() {
    this.height = Number.parseFloat(getComputedStyle(this.element).getPropertyValue('--row')) || 44;
    this.element.style.setProperty('--rows', String(Math.max(1, this.total)));
    this.space.style.height = `${this.total * this.height}px`;
    this.schedule();
  }

  /** Reads the entries in sight again, and others when they come into sight. */
  async reload() {
    this.round += 1;
    this.failed = false;
    await this.load(Math.floor(Math.max(0, this.element.scrollTop) / (this.height || 44) / PAGE));
  }

  /** Forgets all entries: other ones are to be shown from now on. */
  clear() {
    this.pages.clear();
    this.active = -1;
    this.awaited = -1;
    this.element.scrollTop = 0;
  }

  /** Asks again for what could not be read. */
  retry() {
    if (this.failed) void this.reload();
  }

  /** Writes the rows in sight again: what they say of times is of now. */
  refresh() {
    for (const row of this.rows) row.fresh = true;
    this.schedule();
  }

  async load(page) {
    const { round } = this;
    const known = this.pages.get(page);
    if (known?.round === round) return;
    this.pages.set(page, { round, items: known?.items ?? [] });
    const found = await this.fetchPage(page * PAGE, PAGE);
    if (round !== this.round) return;
    if (found === undefined) {
      this.failed = true;
      return;
    }
    this.pages.set(page, { round, items: found.items });
    this.setTotal(found.total);
    this.schedule();
    const awaited = this.awaited === this.active ? this.entry(this.awaited) : undefined;
    if (awaited === undefined) return;
    this.awaited = -1;
    this.open(awaited);
  }

  setTotal(total) {
    this.total = total;
    this.element.setAttribute('aria-rowcount', String(total));
    if (this.active >= total) this.active = total - 1;
    this.measure();
  }

  entry(index) {
    return this.pages.get(Math.floor(index / PAGE))?.items[index % PAGE];
  }

  schedule() {
    this.frame ??= requestAnimationFrame(() => {
      this.frame = undefined;
      this.render();
    });
  }

  render() {
    const { height } = this;
    if (height === undefined) return;
    const top = this.element.scrollTop;
    const first = Math.max(0, Math.floor(top / height) - OVERSCAN);
    const last = Math.min(this.total, Math.ceil((top + this.element.clientHeight) / height) + OVERSCAN);
    while (this.rows.length < last - first) this.rows.push(this.row());
    // A row keeps its element while it is in sight: index i always lies in the same place of the ring.
    const ring = this.rows.length;
    for (const row of this.rows) row.used = false;
    for (let index = first; index < last; index++) {
      const row = this.rows[index % ring];
      row.used = true;
      const entry = this.entry(index);
      if (row.index !== index) {
        row.index = index;
        row.element.style.transform = `translateY(${index * height}px)`;
        row.element.setAttribute('aria-rowindex', String(index + 1));
        row.element.id = `row-${index}`;
      }
      if (row.entry !== entry || row.fresh) {
        row.entry = entry;
        row.fresh = false;
        this.fill(row.cells, entry);
      }
      const selected = entry !== undefined && this.selected.has(entry.id);
      row.element.setAttribute('aria-selected', String(selected));
      row.element.classList.toggle('active', index === this.active);
    }
    for (const row of this.rows) {
      row.element.hidden = !row.used;
      if (!row.used) row.index = undefined;
    }
    if (this.active >= first && this.active < last)
      this.element.setAttribute('aria-activedescendant', `row-${this.active}`);
    else this.element.removeAttribute('aria-activedescendant');
    for (let page = Math.floor(first / PAGE); page * PAGE < last; page++) void this.load(page);
  }

  row() {
    const cells = this.make();
    const element = h('div', { class: 'row', role: 'row' }, Object.values(cells));
    this.space.append(element);
    return { element, cells, index: undefined, entry: undefined, fresh: true, used: false };
  }

  click(event) {
    const row = this.rows.find(({ element }) => element.contains(event.target));
    if (row?.index === undefined) return;
    this.activate(row.index);
    const checks = event.target.closest('.check') !== null;
    if (!checks) this.enter(row.index);
    else if (row.entry !== undefined) this.toggle(row.entry);
  }

  /** Opens the active row: at once, or when its entry comes. */
  enter(index) {
    const entry = this.entry(index);
    if (entry === undefined) this.awaited = index;
    else this.open(entry);
  }

  activate(index) {
    this.active = Math.min(Math.max(0, index), this.total - 1);
    this.awaited = -1;
    const top = this.active * this.height;
    const { scrollTop, clientHeight } = this.element;
    if (top < scrollTop) this.element.scrollTop = top;
    else if (top + this.height > scrollTop + clientHeight) this.element.scrollTop = top + this.height - clientHeight;
    this.schedule();
  }

  toggle(entry) {
    if (!this.selected.delete(entry.id)) this.selected.add(entry.id);
    this.select();
    this.schedule();
  }

  key(event) {
    const page = Math.max(1, Math.floor(this.element.clientHeight / this.height) - 1);
    const moves = { ArrowDown: 1, ArrowUp: -1, PageDown: page, PageUp: -page, Home: -this.total, End: this.total };
    const entry = this.entry(this.active);
    if (event.key in moves) this.activate(this.active + moves[event.key]);
    else if (event.key === 'Enter' && this.active >= 0) this.enter(this.active);
    else if (event.key === ' ' && entry !== undefined) this.toggle(entry);
    else return;
    event.preventDefault();
  }

  close() {
    this.watcher.disconnect();
    if (this.frame !== undefined) cancelAnimationFrame(this.frame);
  }
}
