/**
 * Invites into a room: made with an expiry and a number of uses, listed, revoked.
 * @module
 */

import { html, nothing } from '../dom.js';
import { ask } from '../shell.js';
import { moment, number } from './format.js';
import { table } from './table.js';
import { t } from './texts.js';

const HOUR_S = 3600;
const LIVES_S = [HOUR_S, 24 * HOUR_S, 7 * 24 * HOUR_S, 30 * 24 * HOUR_S];

/**
 * The form that makes one.
 * @param {(wish: { expiresInS: number, maxUses?: number }) => unknown} make
 */
export function inviteForm(make) {
  const submit = (/** @type {SubmitEvent} */ event) => {
    event.preventDefault();
    const form = new FormData(/** @type {HTMLFormElement} */ (event.target));
    const uses = Number(form.get('uses'));
    make({ expiresInS: Number(form.get('life')), ...(uses > 0 ? { maxUses: uses } : {}) });
  };
  return html`
    <form class="row invite-form" @submit=${submit}>
      <label class="field"><span>${t.inviteLife}</span>
        <select name="life">${LIVES_S.map(
          (life, index) => html`<option value=${life} ?selected=${index === 1}>${t.lives[index]}</option>`,
        )}</select></label>
      <label class="field"><span>${t.inviteUses}</span>
        <input name="uses" type="number" min="1" max="1000000" placeholder=${t.unlimited} /></label>
      <button>${t.makeInvite}</button>
    </form>`;
}

/**
 * The list.
 * @param {any[]} invites
 * @param {(invite: any) => unknown} revoke
 * @param {number} [now] Unix us
 */
export function inviteTable(invites, revoke, now = Date.now() * 1000) {
  if (invites.length === 0) return html`<p class="empty">${t.noInvites}</p>`;
  const askFirst = async (/** @type {any} */ invite) => {
    const sure = await ask(t.revokeInvite, html`<p>${t.revokeTold}</p>`, { confirm: t.revoke, danger: true });
    if (sure) revoke(invite);
  };
  /** @type {import('./table.js').Column<any>[]} */
  const columns = [
    { title: t.made, cell: (invite) => moment(invite.createdAt) },
    { title: t.expires, cell: (invite) => moment(invite.expiresAt) },
    {
      title: t.used,
      number: true,
      cell: (invite) => `${number(invite.uses)}${invite.maxUses ? ` / ${number(invite.maxUses)}` : ''}`,
    },
    { title: t.state, cell: (invite) => t.inviteStates[inviteState(invite, now)] },
    {
      title: t.actions,
      cell: (invite) =>
        inviteState(invite, now) === 'good'
          ? html`<button class="compact danger" @click=${() => askFirst(invite)}>${t.revoke}</button>`
          : nothing,
    },
  ];
  return table(t.invites, columns, invites);
}

/** @param {any} invite @param {number} now Unix us @returns {'good' | 'revoked' | 'expired' | 'spent'} */
export function inviteState(invite, now) {
  if (invite.revokedAt) return 'revoked';
  if (invite.expiresAt <= now) return 'expired';
  return invite.maxUses && invite.uses >= invite.maxUses ? 'spent' : 'good';
}
