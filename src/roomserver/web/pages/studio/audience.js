/**
 * Who listens, and what an owner does with them: kick, ban, a hand on their mix.
 * @module
 */

import { html, nothing, repeat } from '../dom.js';
import { ask } from '../shell.js';
import { dialog } from './dialogs.js';
import { number, person, since } from './format.js';
import { mixDialog } from './mix.js';
import { quality } from './quality.js';
import { t } from './texts.js';

/**
 * @param {import('./studio.js').Studio} studio
 * @param {{ attempt: (what: () => Promise<unknown>) => void, fail: (error: unknown) => void }} page
 */
export function audiencePanel(studio, page) {
  return html`
    <section class="panel audience" aria-labelledby="audience-title">
      <header class="panel-head">
        <h2 id="audience-title">${t.listeners} <span class="count">${number(studio.total)}</span></h2>
      </header>
      ${studio.listeners.length === 0
        ? html`<p class="empty">${t.nobodyListens}</p>`
        : html`<ul class="people">${repeat(
            studio.listeners,
            (listener) => listener.clientId,
            (listener) => row(studio, listener, page),
          )}</ul>`}
      ${studio.more
        ? html`<button class="compact" @click=${() => page.attempt(() => studio.showMore())}>${t.more}</button>`
        : nothing}
    </section>`;
}

/** @param {import('./studio.js').Studio} studio @param {any} listener @param {any} page */
function row(studio, listener, page) {
  const name = person(listener.nickname, listener.participantId);
  const { player } = listener;
  return html`
    <li class="person" data-participant=${listener.participantId}>
      <div class="who">
        <strong>${name}</strong>
        <small>${t.sinceTime(since(listener.joinedAt))} · ${t.modes[/** @type {'mix'} */ (listener.mode)]} · ${listener.address}</small>
      </div>
      ${quality(listener.quality, {
        figure: player?.latencyMs == null ? '' : number(player.latencyMs, 'ms'),
        title: player ? t.playerFigures(player) : t.playerSilent,
      })}
      <div class="person-actions" role="group" aria-label=${name}>
        <button class="compact" @click=${() => page.attempt(() => mixDialog(studio, listener, name, page.fail))}>${t.mix}</button>
        <button class="compact" @click=${() => page.attempt(() => kick(studio, listener, name))}>${t.kick}</button>
        <button class="compact danger" @click=${() => page.attempt(() => ban(studio, listener, name))}>${t.ban}</button>
      </div>
    </li>`;
}

/** @param {import('./studio.js').Studio} studio @param {any} listener @param {string} name */
async function kick(studio, listener, name) {
  const reason = await ask(t.kickWhom(name), html`<p>${t.kickTold}</p>${reasonField()}`, {
    confirm: t.kick,
    danger: true,
    read: readReason,
  });
  if (reason === null) return;
  await studio.ask('POST', '/kick', {
    body: { participantId: listener.participantId, ...(reason ? { reason } : {}) },
  });
  await studio.refresh();
}

/** @param {import('./studio.js').Studio} studio @param {any} listener @param {string} name */
async function ban(studio, listener, name) {
  const whom = { participantId: listener.participantId, ...(listener.userId ? { userId: listener.userId } : {}) };
  /** How many connections it would close: of the person alone, and with the address. */
  const hits = { person: NaN, address: NaN };
  let withAddress = !listener.userId;
  const choice = await dialog((/** @type {(answer?: { reason: string }) => void} */ close, redraw) => {
    if (Number.isNaN(hits.person)) {
      hits.person = 0;
      const hitBy = (/** @type {object} */ more) => studio.ask('POST', '/ban', { body: { ...whom, ...more, dryRun: true } });
      Promise.all([hitBy({}), hitBy({ withAddress: true })]).then(
        ([one, both]) => {
          hits.person = one.hits;
          hits.address = both.hits;
          redraw();
        },
        () => close(), // they have left meanwhile
      );
    }
    const count = withAddress ? hits.address : hits.person;
    return html`
      <form class="stack" @submit=${(/** @type {SubmitEvent} */ event) => {
        event.preventDefault();
        close({ reason: readReason(new FormData(/** @type {HTMLFormElement} */ (event.target))) });
      }}>
        <h2>${t.banWhom(name)}</h2>
        <p>${listener.userId ? t.banUserTold : t.banTold}</p>
        <label class="check"><input type="checkbox" name="address" .checked=${withAddress}
          @change=${(/** @type {any} */ event) => {
            withAddress = event.target.checked;
            redraw();
          }} /> <span>${t.banAddress(listener.address)}</span></label>
        ${reasonField()}
        <p class="hits" role="status">${Number.isNaN(count) ? t.counting : t.banHits(count)}</p>
        <div class="actions">
          <button type="button" class="quiet" @click=${() => close()}>${t.cancel}</button>
          <button class="danger">${t.ban}</button>
        </div>
      </form>`;
  });
  if (choice === undefined) return;
  await studio.ask('POST', '/ban', {
    body: { ...whom, withAddress, ...(choice.reason ? { reason: choice.reason } : {}) },
  });
  await studio.refresh();
}

function reasonField() {
  return html`<label class="field"><span>${t.reason}</span>
    <input name="reason" maxlength="200" placeholder=${t.reasonTold} /></label>`;
}

/** @param {FormData} form */
const readReason = (form) => String(form.get('reason') ?? '').trim();
