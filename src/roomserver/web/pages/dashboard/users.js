/**
 * Accounts, for administrators: added, invited, disabled, enabled, given the role.
 * @module
 */

import { request, requestAll, session } from '../api.js';
import { html, nothing } from '../dom.js';
import { ask } from '../shell.js';
import { moment } from '../studio/format.js';
import { copyField } from '../studio/share.js';
import { inviteState } from '../studio/invites.js';
import { table } from '../studio/table.js';
import { t } from './texts.js';

const USERS = '/api/admin/users';
const INVITES = '/api/admin/invites';
const DAY_S = 86_400;

export class UsersView {
  /** @param {import('./page.js').Page} page */
  constructor(page) {
    this._page = page;
    /** @type {any[] | null} */
    this._users = null;
    /** @type {any[]} */
    this._invites = [];
    /** @type {'open' | 'invite' | 'closed' | null} null: not known */
    this._registration = null;
    /** @type {{ link: string, expiresAt: number } | null} told once */
    this._made = null;
    page.attempt(() => this._load());
  }

  dispose() {}

  async _load() {
    [this._users, this._invites, { registration: this._registration }] = await Promise.all([
      requestAll(USERS, 'users'),
      requestAll(INVITES, 'invites', {}, 100),
      request('GET', '/api/server'),
    ]);
    this._page.redraw();
  }

  view() {
    const act = (/** @type {() => Promise<unknown>} */ what) => () => this._page.attempt(what);
    return html`
      <div class="page-head"><h1>${t.users}</h1>
        <div class="row">${this._registration === null || this._registration === 'closed'
          ? nothing
          : html`<button @click=${act(() => this._invite())}>${t.inviteUser}</button>`}
          <button class="primary" @click=${act(() => this._add())}>${t.addUser}</button></div></div>
      ${this._made
        ? html`<div class="made">${copyField(t.accountInviteLink, this._made.link, 'account-invite')}
            <p>${t.inviteOnce(moment(this._made.expiresAt))}</p></div>`
        : nothing}
      <section class="panel" aria-label=${t.users}>
        ${this._users === null
          ? html`<p class="empty" role="status">${t.loading}</p>`
          : table(t.users, this._columns(act), this._users)}
      </section>
      <section class="panel" aria-labelledby="account-invites-title">
        <h2 id="account-invites-title">${t.accountInvites}</h2>
        ${this._registration === 'closed' ? html`<p>${t.invitesWorthless}</p>` : nothing}
        ${this._invites.length === 0 ? html`<p class="empty">${t.noInvites}</p>` : table(t.accountInvites, this._inviteColumns(act), this._invites)}
      </section>`;
  }

  /**
   * @param {(what: () => Promise<unknown>) => () => void} act
   * @returns {import('../studio/table.js').Column<any>[]}
   */
  _columns(act) {
    const isSelf = (/** @type {any} */ user) => user.userId === session.account?.userId;
    return [
      { title: t.email, cell: (user) => user.email },
      { title: t.role, cell: (user) => (user.role === 'admin' ? t.administrator : t.user) },
      { title: t.made, cell: (user) => moment(user.createdAt) },
      {
        title: t.state,
        cell: (user) =>
          user.disabledAt === null
            ? html`<span class="badge good">${t.enabled}</span>`
            : html`<span class="badge bad">${t.disabledSince(moment(user.disabledAt))}</span>`,
      },
      {
        title: t.actions,
        cell: (user) =>
          isSelf(user)
            ? html`<span class="soft">${t.yourself}</span>`
            : html`<span class="row tight">
                <button class="compact" @click=${act(() => this._changeRole(user))}>${user.role === 'admin' ? t.makeUser : t.makeAdmin}</button>
                ${user.disabledAt === null
                  ? html`<button class="compact danger" @click=${act(() => this._disable(user))}>${t.disable}</button>`
                  : html`<button class="compact" @click=${act(() => this._do(user, 'enable'))}>${t.enable}</button>`}
              </span>`,
      },
    ];
  }

  /**
   * @param {(what: () => Promise<unknown>) => () => void} act
   * @returns {import('../studio/table.js').Column<any>[]}
   */
  _inviteColumns(act) {
    const state = (/** @type {any} */ invite) =>
      inviteState({ ...invite, maxUses: 1, uses: invite.usedAt ? 1 : 0 }, Date.now() * 1000);
    return [
      { title: t.forWhom, cell: (invite) => invite.email ?? t.whoeverHasIt },
      { title: t.role, cell: (invite) => (invite.role === 'admin' ? t.administrator : t.user) },
      { title: t.expires, cell: (invite) => moment(invite.expiresAt) },
      { title: t.state, cell: (invite) => t.inviteStates[state(invite)] },
      {
        title: t.actions,
        cell: (invite) =>
          state(invite) === 'good'
            ? html`<button class="compact danger" @click=${act(() => this._revoke(invite))}>${t.revoke}</button>`
            : nothing,
      },
    ];
  }

  async _add() {
    const wish = await ask(t.addUser, [emailField(true), html`
      <label class="field"><span>${t.password}</span>
        <input name="password" type="text" required maxlength="72" autocomplete="off" spellcheck="false" /></label>`, roleField()], {
      confirm: t.addUser,
      read: (form) => ({ email: form.get('email'), password: form.get('password'), role: form.get('role') }),
    });
    if (!wish) return;
    await request('POST', USERS, { body: wish });
    await this._load();
  }

  async _invite() {
    const wish = await ask(t.inviteUser, [emailField(false), roleField(), html`
      <label class="field"><span>${t.inviteDays}</span><input name="days" type="number" min="1" max="30" value="7" required /></label>`], {
      confirm: t.makeInvite,
      read: (form) => ({
        role: form.get('role'),
        expiresInS: Number(form.get('days')) * DAY_S,
        ...(form.get('email') ? { email: form.get('email') } : {}),
      }),
    });
    if (!wish) return;
    const { invite, expiresAt } = await request('POST', INVITES, { body: wish });
    // Behind #, which no browser sends and no log sees.
    this._made = { link: new URL(`/broadcast#account-invite=${invite}`, location.href).href, expiresAt };
    await this._load();
  }

  /** @param {any} user */
  async _changeRole(user) {
    const role = user.role === 'admin' ? 'user' : 'admin';
    const sure = await ask(role === 'admin' ? t.makeAdminWhom(user.email) : t.makeUserWhom(user.email), role === 'admin' ? html`<p>${t.adminTold}</p>` : nothing, {
      confirm: role === 'admin' ? t.makeAdmin : t.makeUser,
      danger: role === 'admin',
    });
    if (!sure) return;
    await request('PATCH', `${USERS}/${user.userId}`, { body: { role } });
    await this._load();
  }

  /** @param {any} user */
  async _disable(user) {
    const sure = await ask(t.disableWhom(user.email), html`<p>${t.disableTold}</p>`, { confirm: t.disable, danger: true });
    if (sure) await this._do(user, 'disable');
  }

  /** @param {any} user @param {'enable' | 'disable'} what */
  async _do(user, what) {
    await request('POST', `${USERS}/${user.userId}/${what}`);
    await this._load();
  }

  /** @param {any} invite */
  async _revoke(invite) {
    await request('DELETE', `${INVITES}/${invite.inviteId}`);
    await this._load();
  }
}

/** @param {boolean} required */
function emailField(required) {
  return html`<label class="field"><span>${t.email}</span>
    <input name="email" type="email" maxlength="254" autocomplete="off" ?required=${required} placeholder=${required ? nothing : t.whoeverHasIt} /></label>`;
}

function roleField() {
  return html`<label class="field"><span>${t.role}</span>
    <select name="role"><option value="user">${t.user}</option><option value="admin">${t.administrator}</option></select></label>`;
}
