/**
 * The ways in: link, code, QR, and invites that need no password.
 * @module
 */

import { request } from '../api.js';
import { copyText, html, icon, nothing } from '../dom.js';
import { dialog } from './dialogs.js';
import { moment } from './format.js';
import { inviteForm, inviteTable } from './invites.js';
import { qr } from './qr.js';
import { t } from './texts.js';

/**
 * @param {any} room
 * @param {(error: unknown) => void} failed
 */
export async function shareDialog(room, failed) {
  const path = `/api/broadcaster/rooms/${room.roomId}/invites`;
  const link = new URL(`/listen/${room.roomCode}`, location.href).href;
  /** @type {any[]} */
  let invites = [];
  /** @type {{ link: string, expiresAt: number } | null} told once */
  let made = null;
  let redraw = () => {};
  const attempt = (/** @type {() => Promise<unknown>} */ what) => what().catch(failed);
  const load = async () => {
    ({ invites } = await request('GET', path, { query: { limit: 20 } }));
    redraw();
  };
  const make = (/** @type {object} */ wish) => attempt(async () => {
    made = await request('POST', path, { body: wish });
    await load();
  });
  const revoke = (/** @type {any} */ invite) => attempt(async () => {
    await request('DELETE', `${path}/${invite.inviteId}`);
    await load();
  });
  void attempt(load);
  await dialog((close, again) => {
    redraw = again;
    return html`
      <div class="stack share">
        <header class="row spread"><h2>${t.shareRoom(room.name)}</h2>
          <button class="compact quiet icon-only" aria-label=${t.close} @click=${() => close()}>${icon('close')}</button></header>
        <div class="ways">
          ${qr(link, t.qrOf(link))}
          <div class="stack">
            <p class="code" aria-label=${t.code}>${room.roomCode}</p>
            ${copyField(t.link, link, 'link')}
            <p>${room.open ? t.openToAll : t.needsPassword}</p>
          </div>
        </div>
        <section class="stack" aria-labelledby="invites-title">
          <h3 id="invites-title">${t.invites}</h3>
          <p>${t.invitesTold}</p>
          ${inviteForm(make)}
          ${made
            ? html`<div class="ways made">${qr(made.link, t.qrOf(t.invite))}
                <div class="stack">${copyField(t.inviteLink, made.link, 'invite')}
                  <p>${t.inviteOnce(moment(made.expiresAt))}</p></div></div>`
            : nothing}
          ${inviteTable(invites, revoke)}
        </section>
      </div>`;
  }, { wide: true });
}

/** A text to be copied. @param {string} label @param {string} text @param {string} name */
export function copyField(label, text, name) {
  const copy = async (/** @type {Event} */ event) => {
    const button = /** @type {HTMLButtonElement} */ (event.currentTarget);
    const field = /** @type {HTMLInputElement} */ (button.previousElementSibling?.querySelector('input'));
    field.select();
    // Over plain http nothing may be copied: it is selected, at least.
    button.textContent = (await copyText(text)) ? t.copied : t.copyByHand;
  };
  return html`<div class="copy"><label class="field"><span>${label}</span>
    <input readonly name=${name} .value=${text} @focus=${(/** @type {any} */ event) => event.target.select()} /></label>
    <button type="button" aria-live="polite" @click=${copy}>${t.copy}</button></div>`;
}
