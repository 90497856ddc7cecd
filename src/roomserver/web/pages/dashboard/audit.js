/**
 * The audit log with filters: one's own lines, and for administrators everybody's.
 * @module
 */

import { request, requestAll } from '../api.js';
import { html, nothing } from '../dom.js';
import { csv, saveCsv } from '../studio/csv.js';
import { exactMoment } from '../studio/format.js';
import { table } from '../studio/table.js';
import { t } from './texts.js';

const PAGE = 50;
const MOST_EXPORTED = 20_000;

export class AuditView {
  /**
   * @param {import('./page.js').Page} page
   * @param {{ everybodys?: boolean }} [options]
   */
  constructor(page, { everybodys = false } = {}) {
    this._page = page;
    this._everybodys = everybodys;
    this._path = everybodys ? '/api/admin/audit' : '/api/audit';
    /** @type {Record<string, unknown>} */
    this._query = {};
    /** @type {any[] | null} */
    this._entries = null;
    /** @type {string | null} */
    this._next = null;
    /** @type {any[]} */
    this._rooms = [];
    /** @type {any[]} */
    this._users = [];
    page.attempt(() => Promise.all([this._load(), this._loadNames()]));
  }

  dispose() {}

  async _loadNames() {
    const path = this._everybodys ? '/api/admin/rooms' : '/api/broadcaster/rooms';
    this._rooms = await requestAll(path, 'rooms', {}, 200);
    if (this._everybodys) this._users = await requestAll('/api/admin/users', 'users', {}, 200);
    this._page.redraw();
  }

  async _load(more = false) {
    const [filters, cursor] = [this._query, more ? this._next : null];
    const query = { ...filters, limit: PAGE, cursor };
    const { entries, next } = await request('GET', this._path, { query });
    // Of filters that were changed meanwhile, or no longer the page after the last.
    if (filters !== this._query || (more && cursor !== this._next)) return;
    this._entries = more ? [...(this._entries ?? []), ...entries] : entries;
    this._next = next;
    this._page.redraw();
  }

  view() {
    return html`
      <div class="page-head"><h1>${this._everybodys ? t.everybodysAudit : t.audit}</h1>
        <button @click=${() => this._page.attempt(() => this._export())}>${t.exportCsv}</button></div>
      <section class="panel" aria-label=${t.audit}>
        ${this._filters()}
        ${this._entries === null
          ? html`<p class="empty" role="status">${t.loading}</p>`
          : this._entries.length === 0
            ? html`<p class="empty">${t.nothingFound}</p>`
            : table(t.audit, this._columns(), this._entries)}
        ${this._next === null ? nothing : html`<div><button @click=${() => this._page.attempt(() => this._load(true))}>${t.more}</button></div>`}
      </section>`;
  }

  _filters() {
    const change = (/** @type {Event} */ event) => {
      const data = new FormData(/** @type {HTMLFormElement} */ (event.currentTarget));
      const time = (/** @type {string} */ name) => {
        const text = String(data.get(name) ?? '');
        return text ? new Date(text).getTime() * 1000 : null;
      };
      this._query = {
        event: data.get('event') || null,
        room: data.get('room') || null,
        user: data.get('user') || null,
        since: time('since'),
        until: time('until'),
      };
      this._page.attempt(() => this._load());
    };
    return html`
      <form class="filters" @change=${change} @submit=${(/** @type {Event} */ event) => event.preventDefault()}>
        <label class="field"><span>${t.event}</span>
          <select name="event"><option value="">${t.any}</option>
            ${Object.entries(t.events).map(([event, text]) => html`<option value=${event}>${text}</option>`)}</select></label>
        <label class="field"><span>${t.room}</span>
          <select name="room"><option value="">${t.any}</option>
            ${this._rooms.map((room) => html`<option value=${room.roomId}>${room.name} (${room.roomCode})</option>`)}</select></label>
        ${this._everybodys
          ? html`<label class="field"><span>${t.user}</span>
              <select name="user"><option value="">${t.any}</option>
                ${this._users.map((user) => html`<option value=${user.userId}>${user.email}</option>`)}</select></label>`
          : nothing}
        <label class="field"><span>${t.from}</span><input type="datetime-local" name="since" /></label>
        <label class="field"><span>${t.to}</span><input type="datetime-local" name="until" /></label>
      </form>`;
  }

  /** @returns {import('../studio/table.js').Column<any>[]} */
  _columns() {
    return [
      { title: t.when, cell: (entry) => exactMoment(entry.at) },
      { title: t.event, cell: (entry) => eventName(entry.event) },
      { title: t.room, cell: (entry) => this._roomName(entry.roomId) },
      ...(this._everybodys ? [{ title: t.user, cell: (/** @type {any} */ entry) => this._userName(entry.userId) }] : []),
      { title: t.address, cell: (entry) => entry.address ?? '–' },
      { title: t.details, cell: (entry) => html`<span class="details">${details(entry.details)}</span>` },
    ];
  }

  /** @param {string | null} id */
  _roomName(id) {
    return id === null ? '–' : (this._rooms.find((room) => room.roomId === id)?.name ?? id);
  }

  /** @param {string | null} id */
  _userName(id) {
    return id === null ? '–' : (this._users.find((user) => user.userId === id)?.email ?? id);
  }

  async _export() {
    const entries = await requestAll(this._path, 'entries', this._query, MOST_EXPORTED);
    const head = ['time', 'event', 'userId', 'roomId', 'address', 'userAgent', 'details'];
    const rows = entries.map((entry) => [
      new Date(entry.at / 1000).toISOString(),
      entry.event,
      entry.userId,
      entry.roomId,
      entry.address,
      entry.userAgent,
      JSON.stringify(entry.details),
    ]);
    saveCsv('audit.csv', csv(head, rows));
  }
}

/** @param {string} event */
function eventName(event) {
  return t.events[/** @type {'logout'} */ (event)] ?? event;
}

/** @param {Record<string, unknown>} facts */
function details(facts) {
  return Object.entries(facts)
    .filter(([, value]) => value !== null)
    .map(([name, value]) => `${name}: ${typeof value === 'object' ? JSON.stringify(value) : value}`)
    .join(', ');
}
