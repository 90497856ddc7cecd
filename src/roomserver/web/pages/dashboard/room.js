/**
 * One room: its figures, who was there, and what can be changed about it.
 * @module
 */

import { request, requestAll } from '../api.js';
import { html, icon, nothing } from '../dom.js';
import { ask, toast } from '../shell.js';
import { csv, saveCsv } from '../studio/csv.js';
import { duration, exactMoment, moment, number, person } from '../studio/format.js';
import { stayQuality } from '../studio/health.js';
import { inviteForm, inviteTable } from '../studio/invites.js';
import { poll } from '../studio/poll.js';
import { quality } from '../studio/quality.js';
import { askRoomChanges, askRoomPassword, askToClose } from '../studio/roomform.js';
import { copyField } from '../studio/share.js';
import { table } from '../studio/table.js';
import { Chart } from './chart.js';
import { everyDay, occupancy } from './occupancy.js';
import { roomState } from './rooms.js';
import { t } from './texts.js';

const NOW_MS = 5000;
const PEOPLE = 50;
const MOST_STAYS = 1000; // of which the curve of today is made
const MOST_EXPORTED = 20_000;
const CURVE_S = 6 * 3600;
const USUAL_DAYS = 30;
const DAY_MS = 86_400_000;

const isoDay = (/** @type {number} */ ms) => new Date(ms).toISOString().slice(0, 10);

export class RoomView {
  /** @param {import('./page.js').Page} page @param {string} id */
  constructor(page, id) {
    this._page = page;
    this._path = `/api/broadcaster/rooms/${encodeURIComponent(id)}`;
    /** @type {any} */
    this._room = null;
    /** @type {any} */
    this._statistics = null;
    this._to = isoDay(Date.now());
    this._from = isoDay(Date.now() - (USUAL_DAYS - 1) * DAY_MS);
    /** @type {any[]} */
    this._days = [];
    /** @type {boolean | undefined} those who are there, those who were, or all */
    this._live = undefined;
    /** @type {any[] | null} */
    this._people = null;
    /** @type {string | null} */
    this._nextPeople = null;
    /** @type {any[]} */
    this._invites = [];
    /** @type {{ link: string, expiresAt: number } | null} told once */
    this._made = null;
    /** @type {any[]} */
    this._bans = [];
    this._curve = { times: /** @type {number[]} */ ([]), counts: /** @type {number[]} */ ([]) };
    this._now = new Chart({ label: t.listeners, format: (n) => number(n) });
    this._peaks = new Chart({ label: t.peak, bars: true, utc: true, format: (n) => number(n) });
    this._minutes = new Chart({ label: t.minutes, bars: true, utc: true, colour: '--good', format: (n) => number(n) });
    page.attempt(() => this._begin());
    this._stop = poll(() => this._look(), NOW_MS, (error) => page.fail(error));
  }

  dispose() {
    this._stop();
    for (const chart of [this._now, this._peaks, this._minutes]) chart.dispose();
  }

  /** Whether it can be changed, and here. */
  get _open() {
    return this._room !== null && this._room.state !== 'closed' && this._room.listenerCount !== null;
  }

  async _begin() {
    this._room = await request('GET', this._path);
    await Promise.all([this._loadCurve(), this._loadDays(), this._loadPeople(), this._loadOwners()]);
  }

  /** What is so now, asked again and again. */
  async _look() {
    [this._room, this._statistics] = await Promise.all([
      request('GET', this._path),
      this._room?.state === 'closed' && this._statistics ? this._statistics : request('GET', `${this._path}/statistics`),
    ]);
    if (this._room.listenerCount !== null) {
      this._curve.times.push(Date.now() / 1000);
      this._curve.counts.push(this._room.listenerCount);
    }
    this._drawCurve();
    this._page.redraw();
  }

  async _loadCurve() {
    const stays = await requestAll(`${this._path}/participants`, 'participants', {}, MOST_STAYS);
    // Of more stays than that, those who came first and are still there would be missing.
    if (stays.length >= MOST_STAYS) return;
    const before = occupancy(stays);
    const seen = this._curve.times[0] ?? Infinity;
    const until = before.times.findIndex((time) => time >= seen);
    const count = until < 0 ? before.times.length : until;
    this._curve.times.unshift(...before.times.slice(0, count));
    this._curve.counts.unshift(...before.counts.slice(0, count));
    this._drawCurve();
  }

  _drawCurve() {
    const { times, counts } = this._curve;
    const until = this._room?.closedAt ? this._room.closedAt / 1e6 : Date.now() / 1000;
    const first = Math.max(until - CURVE_S, Math.min(times[0] ?? until, until - 60));
    const from = times.findLastIndex((time) => time <= first);
    const [shownTimes, shownCounts] = [times.slice(Math.max(0, from)), counts.slice(Math.max(0, from))];
    const highest = Math.max(0, ...shownCounts);
    this._now.set(shownTimes, shownCounts, [first, until], t.curveTold(counts.at(-1) ?? 0, highest));
  }

  async _loadDays() {
    const query = { from: this._from, to: this._to };
    this._days = (await request('GET', `${this._path}/analytics`, { query })).days;
    const days = everyDay(this._days, this._from, this._to);
    const times = days.map((day) => day.at);
    const span = /** @type {[number, number]} */ ([times[0] - 43_200, /** @type {number} */ (times.at(-1)) + 43_200]);
    // A day without anybody has no bar, not one of no height.
    const peaks = days.map((day) => day.peakListeners || null);
    const minutes = days.map((day) => day.totalListenMinutes || null);
    this._peaks.set(times, peaks, span, t.peaksTold(Math.max(...peaks.map(Number)), this._days.length));
    this._minutes.set(times, minutes, span, t.minutesTold(minutes.reduce((sum, n) => Number(sum) + Number(n), 0) ?? 0, this._days.length));
    this._page.redraw();
  }

  async _loadPeople(more = false) {
    const [live, cursor] = [this._live, more ? this._nextPeople : null];
    const query = { live, limit: PEOPLE, cursor };
    const { participants, next } = await request('GET', `${this._path}/participants`, { query });
    if (live !== this._live || (more && cursor !== this._nextPeople)) return;
    this._people = more ? [...(this._people ?? []), ...participants] : participants;
    this._nextPeople = next;
    this._page.redraw();
  }

  /** What only the owner of an open room can ask. */
  async _loadOwners() {
    if (!this._open) return;
    [this._invites, this._bans] = await Promise.all([
      requestAll(`${this._path}/invites`, 'invites', {}, 200),
      requestAll(`${this._path}/bans`, 'bans', {}, 200),
    ]);
    this._page.redraw();
  }

  view() {
    const room = this._room;
    if (room === null) return html`<p class="empty" role="status">${t.loading}</p>`;
    return html`
      <div class="page-head">
        <div><a class="button quiet compact back" href="#/rooms">${icon('back')} ${t.yourRooms}</a>
          <h1>${room.name}</h1>
          <p class="row">${roomState(room)} <span class="code">${room.roomCode}</span>
            <span class="soft">${t.since(moment(room.createdAt))}${room.closedAt ? ` – ${moment(room.closedAt)}` : ''}</span></p></div>
        ${this._open ? this._actions(room) : nothing}
      </div>
      ${this._tiles()}
      <section class="panel" aria-labelledby="now-title"><h2 id="now-title">${t.listenersOverTime}</h2>${this._now.element}</section>
      ${this._history()} ${this._peopleView()}
      ${this._open ? html`<div class="pair">${this._invitesView()} ${this._bansView()}</div>` : nothing}`;
  }

  /** @param {any} room */
  _actions(room) {
    const act = (/** @type {() => Promise<unknown>} */ what) => () => this._page.attempt(what);
    return html`
      <div class="head-actions">
        <a class="button primary" href="/broadcast?room=${room.roomCode}">${t.goBroadcast}</a>
        <button @click=${act(() => this._change())}>${t.roomSettings}</button>
        <button @click=${act(() => this._changePassword())}>${t.changePassword}</button>
        <button class="danger" @click=${act(() => this._close())}>${t.closeRoom}</button>
      </div>`;
  }

  _tiles() {
    const s = this._statistics;
    const tile = (/** @type {string} */ name, /** @type {string} */ value) => html`<div class="tile"><dt>${name}</dt><dd>${value}</dd></div>`;
    return html`
      <dl class="tiles">
        ${tile(t.listenersNow, number(this._room.listenerCount))}
        ${tile(t.peak, number(s?.peakListeners))}
        ${tile(t.participants, number(s?.participants))}
        ${tile(t.sessions, number(s?.sessions))}
        ${tile(t.minutes, number(s ? s.listenSeconds / 60 : null))}
        ${tile(t.average, duration(s?.averageSessionSeconds))}
      </dl>`;
  }

  _history() {
    const change = (/** @type {Event} */ event) => {
      const data = new FormData(/** @type {HTMLFormElement} */ (event.currentTarget));
      const [from, to] = [String(data.get('first')), String(data.get('last'))];
      if (!from || !to) return;
      [this._from, this._to] = [from, to];
      this._page.attempt(() => this._loadDays());
    };
    return html`
      <section class="panel" aria-labelledby="history-title">
        <header class="panel-head"><h2 id="history-title">${t.history}</h2>
          <button class="compact" @click=${() => this._page.attempt(async () => this._exportDays())}>${t.exportCsv}</button></header>
        <form class="filters" @change=${change} @submit=${(/** @type {Event} */ event) => event.preventDefault()}>
          <label class="field"><span>${t.fromDay}</span><input type="date" name="first" .value=${this._from} max=${this._to} required /></label>
          <label class="field"><span>${t.toDay}</span><input type="date" name="last" .value=${this._to} min=${this._from} required /></label>
        </form>
        <div class="pair"><figure><figcaption>${t.peakPerDay}</figcaption>${this._peaks.element}</figure>
          <figure><figcaption>${t.minutesPerDay}</figcaption>${this._minutes.element}</figure></div>
        ${this._days.length === 0
          ? html`<p class="empty">${t.noDays}</p>`
          : html`<details><summary>${t.asTable}</summary>${table(t.history, DAY_COLUMNS, this._days.toReversed())}</details>`}
      </section>`;
  }

  _peopleView() {
    const segment = (/** @type {boolean | undefined} */ live, /** @type {string} */ text) => html`
      <label><input type="radio" name="live" .checked=${this._live === live} @change=${() => {
        this._live = live;
        this._people = null;
        this._page.attempt(() => this._loadPeople());
      }} />${text}</label>`;
    return html`
      <section class="panel" aria-labelledby="people-title">
        <header class="panel-head"><h2 id="people-title">${t.people}</h2>
          <div class="row"><div class="segments" role="radiogroup" aria-label=${t.whichPeople}>
              ${segment(undefined, t.everybody)}${segment(true, t.there)}${segment(false, t.left)}</div>
            <button class="compact" @click=${() => this._page.attempt(() => this._loadPeople())}>${icon('reset')} ${t.refresh}</button>
            <button class="compact" @click=${() => this._page.attempt(() => this._exportPeople())}>${t.exportCsv}</button></div></header>
        ${this._people === null
          ? html`<p class="empty" role="status">${t.loading}</p>`
          : this._people.length === 0
            ? html`<p class="empty">${t.nobody}</p>`
            : table(t.people, PEOPLE_COLUMNS, this._people)}
        ${this._nextPeople === null ? nothing : html`<div><button @click=${() => this._page.attempt(() => this._loadPeople(true))}>${t.more}</button></div>`}
      </section>`;
  }

  _invitesView() {
    const make = (/** @type {object} */ wish) => this._page.attempt(async () => {
      this._made = await request('POST', `${this._path}/invites`, { body: wish });
      await this._loadOwners();
    });
    const revoke = (/** @type {any} */ invite) => this._page.attempt(async () => {
      await request('DELETE', `${this._path}/invites/${invite.inviteId}`);
      await this._loadOwners();
    });
    return html`
      <section class="panel" aria-labelledby="invites-title">
        <h2 id="invites-title">${t.invites}</h2>
        ${inviteForm(make)}
        ${this._made ? html`<div class="made">${copyField(t.inviteLink, this._made.link, 'invite')}<p>${t.inviteOnce(moment(this._made.expiresAt))}</p></div>` : nothing}
        ${inviteTable(this._invites, revoke)}
      </section>`;
  }

  _bansView() {
    const lift = (/** @type {any} */ ban) => this._page.attempt(async () => {
      if (!(await ask(t.liftBan, html`<p>${t.liftTold}</p>`, { confirm: t.lift }))) return;
      await request('DELETE', `${this._path}/bans/${ban.banId}`);
      await this._loadOwners();
    });
    /** @type {import('../studio/table.js').Column<any>[]} */
    const columns = [
      { title: t.whom, cell: (ban) => [ban.userId && t.anAccount, ban.participantId && person(null, ban.participantId), ban.address].filter(Boolean).join(', ') },
      { title: t.reason, cell: (ban) => ban.reason ?? '–' },
      { title: t.sinceWhen, cell: (ban) => moment(ban.createdAt) },
      { title: t.actions, cell: (ban) => html`<button class="compact" @click=${() => lift(ban)}>${t.lift}</button>` },
    ];
    return html`
      <section class="panel" aria-labelledby="bans-title">
        <h2 id="bans-title">${t.bans}</h2>
        ${this._bans.length === 0 ? html`<p class="empty">${t.noBans}</p>` : table(t.bans, columns, this._bans)}
      </section>`;
  }

  async _change() {
    const changes = await askRoomChanges(this._room);
    if (changes) this._room = await request('PATCH', this._path, { body: changes });
  }

  async _changePassword() {
    const wish = await askRoomPassword();
    if (!wish) return;
    const { open, droppedListeners } = await request('POST', `${this._path}/password`, { body: wish });
    toast(t.passwordChanged(open, droppedListeners), 'good');
  }

  async _close() {
    if (!(await askToClose(this._room))) return;
    await request('DELETE', this._path);
    await this._look();
  }

  _exportDays() {
    const head = ['date', 'peakListeners', 'totalListenMinutes', 'totalListeners', 'avgLatencyMs', 'totalPacketsSent', 'totalPacketsReceived'];
    saveCsv(`${this._room.roomCode}-days.csv`, csv(head, this._days.map((day) => head.map((name) => day[name]))));
  }

  async _exportPeople() {
    const stays = await requestAll(`${this._path}/participants`, 'participants', { live: this._live }, MOST_EXPORTED);
    const time = (/** @type {number | null} */ us) => (us === null ? null : new Date(us / 1000).toISOString());
    const head = [
      'nickname', 'role', 'joinedAt', 'leftAt', 'durationS', 'leaveReason', 'framesSent', 'framesDropped',
      'avgLatencyMs', 'address', 'userAgent', 'participantId', 'userId', 'clientId',
    ];
    const rows = stays.map((stay) => head.map((name) => (name.endsWith('At') ? time(stay[name]) : stay[name])));
    saveCsv(`${this._room.roomCode}-people.csv`, csv(head, rows));
  }
}

/** @type {import('../studio/table.js').Column<any>[]} */
const DAY_COLUMNS = [
  { title: t.day, cell: (day) => day.date },
  { title: t.peak, number: true, cell: (day) => number(day.peakListeners) },
  { title: t.minutes, number: true, cell: (day) => number(day.totalListenMinutes) },
  { title: t.participants, number: true, cell: (day) => number(day.totalListeners) },
  { title: t.delay, number: true, cell: (day) => number(day.avgLatencyMs, 'ms') },
];

/** @type {import('../studio/table.js').Column<any>[]} */
const PEOPLE_COLUMNS = [
  { title: t.who, cell: (stay) => html`${person(stay.nickname, stay.participantId)}${stay.role === 'broadcaster' ? html` <span class="badge plain">${t.broadcaster}</span>` : nothing}` },
  { title: t.cameAt, cell: (stay) => exactMoment(stay.joinedAt) },
  { title: t.stayed, number: true, cell: (stay) => (stay.leftAt === null ? t.stillThere : duration(stay.durationS)) },
  { title: t.qualityTitle, cell: (stay) => (stay.role === 'broadcaster' ? '–' : quality(stayQuality(stay), { title: t.stayFigures(stay) })) },
  { title: t.delay, number: true, cell: (stay) => number(stay.avgLatencyMs, 'ms') },
  { title: t.dropped, number: true, cell: (stay) => number(stay.framesDropped) },
  { title: t.why, cell: (stay) => t.leaveReasons[/** @type {'kicked'} */ (stay.leaveReason)] ?? stay.leaveReason ?? '–' },
  { title: t.address, cell: (stay) => stay.address ?? '–' },
];
