/**
 * One's own account: who it is, and another password.
 * @module
 */

import { session } from '../api.js';
import { html, nothing } from '../dom.js';
import { toast } from '../shell.js';
import { moment } from '../studio/format.js';
import { t } from './texts.js';

export class AccountView {
  /** @param {import('./page.js').Page} page */
  constructor(page) {
    this._page = page;
    this._failed = '';
  }

  dispose() {}

  view() {
    const { account } = session;
    return html`
      <div class="page-head"><h1>${t.account}</h1></div>
      <section class="panel narrow" aria-labelledby="who-title">
        <h2 id="who-title">${account?.email}</h2>
        <p class="soft">${account?.role === 'admin' ? t.administrator : t.user} · ${t.since(moment(account?.createdAt))}</p>
      </section>
      <section class="panel narrow" aria-labelledby="password-title">
        <h2 id="password-title">${t.changePassword}</h2>
        <p class="soft">${t.passwordTold}</p>
        <form class="stack" @submit=${(/** @type {SubmitEvent} */ event) => this._submit(event)}>
          <input class="unseen" type="email" autocomplete="username" tabindex="-1" aria-hidden="true" .value=${account?.email ?? ''} readonly />
          ${password('old', t.oldPassword, 'current-password')}
          ${password('new', t.newPassword, 'new-password')}
          ${password('again', t.newAgain, 'new-password')}
          ${this._failed ? html`<p class="error" role="alert">${this._failed}</p>` : nothing}
          <div><button class="primary">${t.changePassword}</button></div>
        </form>
      </section>`;
  }

  /** @param {SubmitEvent} event */
  async _submit(event) {
    event.preventDefault();
    const form = /** @type {HTMLFormElement} */ (event.target);
    const data = new FormData(form);
    const text = (/** @type {string} */ name) => String(data.get(name) ?? '');
    this._failed = text('new') === text('again') ? '' : t.notTheSame;
    if (!this._failed) {
      try {
        await session.changePassword(text('old'), text('new'));
        form.reset();
        toast(t.passwordNew, 'good');
      } catch (error) {
        const { code } = /** @type {any} */ (error);
        this._failed = code === 'invalid_credentials' ? t.oldWrong : t.describe(error);
      }
    }
    this._page.redraw();
  }
}

/** @param {string} name @param {string} label @param {'current-password' | 'new-password'} autocomplete */
function password(name, label, autocomplete) {
  return html`<label class="field"><span>${label}</span>
    <input name=${name} type="password" required maxlength="72" autocomplete=${autocomplete} /></label>`;
}
