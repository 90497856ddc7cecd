/**
 * Lists of rooms: one's own, and for administrators everybody's.
 * @module
 */

import { request, requestAll } from '../api.js';
import { html, icon, nothing } from '../dom.js';
import { askToClose } from '../studio/roomform.js';
import { moment, number } from '../studio/format.js';
import { poll } from '../studio/poll.js';
import { table } from '../studio/table.js';
import { t } from './texts.js';

const PAGE = 50;
const AGAIN_MS = 10_000;

export class RoomList {
  /**
   * @param {import('./page.js').Page} page
   * @param {{ everybodys?: boolean }} [options]
   */
  constructor(page, { everybodys = false } = {}) {
    this._page = page;
    this._everybodys = everybodys;
    this._active = true;
    /** @type {any[] | null} */
    this._rooms = null;
    /** @type {string | null} */
    this._next = null;
    this._pages = 1;
    /** @type {Map<string, string>} e-mail addresses by account */
    this._owners = new Map();
    this._stop = poll(() => this._load(), AGAIN_MS, (error) => page.fail(error));
    if (everybodys) page.attempt(() => this._loadOwners());
  }

  dispose() {
    this._stop();
  }

  /** Everything that is shown is asked for again: rooms come and go between pages. */
  async _load() {
    const path = this._everybodys ? '/api/admin/rooms' : '/api/broadcaster/rooms';
    const active = this._active;
    const rooms = [];
    let cursor = null;
    for (let n = 0; n < this._pages; n += 1) {
      const answer = await request('GET', path, { query: { limit: PAGE, active, cursor } });
      rooms.push(...answer.rooms);
      cursor = answer.next;
      if (cursor === null) break;
    }
    if (active !== this._active) return;
    this._rooms = rooms;
    this._next = cursor;
    this._page.redraw();
  }

  async _loadOwners() {
    const users = await requestAll('/api/admin/users', 'users');
    this._owners = new Map(users.map((/** @type {any} */ user) => [user.userId, user.email]));
    this._page.redraw();
  }

  view() {
    const choose = (/** @type {boolean} */ active) => {
      this._active = active;
      this._rooms = null;
      this._pages = 1;
      this._page.attempt(() => this._load());
    };
    const segment = (/** @type {boolean} */ active, /** @type {string} */ text) => html`
      <label><input type="radio" name="active" .checked=${this._active === active} @change=${() => choose(active)} />${text}</label>`;
    return html`
      <div class="page-head"><h1>${this._everybodys ? t.allRooms : t.yourRooms}</h1>
        <div class="row">
          <div class="segments" role="radiogroup" aria-label=${t.whichRooms}>${segment(true, t.openRooms)}${segment(false, t.closedRooms)}</div>
          ${this._everybodys ? nothing : html`<a class="button primary" href="/broadcast">${icon('plus')} ${t.goBroadcast}</a>`}
        </div></div>
      <section class="panel" aria-label=${t.yourRooms}>
        ${this._rooms === null
          ? html`<p class="empty" role="status">${t.loading}</p>`
          : this._rooms.length === 0
            ? html`<p class="empty">${this._active ? t.noneOpen : t.noneClosed}</p>`
            : table(t.yourRooms, this._columns(), this._rooms)}
        ${this._next === null ? nothing : html`<div><button @click=${() => {
          this._pages += 1;
          this._page.attempt(() => this._load());
        }}>${t.more}</button></div>`}
      </section>`;
  }

  /** @returns {import('../studio/table.js').Column<any>[]} */
  _columns() {
    const own = !this._everybodys;
    return [
      { title: t.name, cell: (room) => (own ? html`<a href="#/rooms/${room.roomId}">${room.name}</a>` : room.name) },
      { title: t.code, cell: (room) => html`<span class="code">${room.roomCode}</span>` },
      ...(own ? [] : [{ title: t.owner, cell: (/** @type {any} */ room) => this._owners.get(room.owner) ?? room.owner ?? '–' }]),
      { title: t.state, cell: roomState },
      { title: t.listeners, number: true, cell: (room) => number(room.listenerCount) },
      { title: t.made, cell: (room) => moment(room.createdAt) },
      ...(this._active
        ? []
        : [{ title: t.closed, cell: (/** @type {any} */ room) => moment(room.closedAt) }]),
      ...(own || !this._active
        ? []
        : [{ title: t.actions, cell: (/** @type {any} */ room) => html`<button class="compact danger" @click=${() => this._page.attempt(() => this._close(room))}>${t.closeRoom}</button>` }]),
    ];
  }

  /** @param {any} room */
  async _close(room) {
    if (!(await askToClose(room))) return;
    await request('DELETE', `/api/admin/rooms/${room.roomId}`);
    await this._load();
  }
}

/** @param {any} room */
export function roomState(room) {
  if (room.state === 'closed') {
    const reason = t.closeReasons[/** @type {'expired'} */ (room.closeReason)];
    return html`<span class="badge plain">${t.roomStates.closed}${reason ? ` · ${reason}` : ''}</span>`;
  }
  if (room.listenerCount === null) return html`<span class="badge plain">${t.onAnotherServer}</span>`;
  if (room.live) return html`<span class="badge good pulsing">${t.onAir}</span>`;
  return html`<span class="badge ${room.state === 'suspended' ? 'warn' : ''}">${t.roomStates[/** @type {'waiting'} */ (room.state)]}</span>`;
}
