/**
 * Signing in, or making an account where the server lets one.
 * @module
 */

import { request, session } from '../api.js';
import { html, icon, nothing } from '../dom.js';
import { toast } from '../shell.js';
import { t } from './texts.js';

/** An invite to make an account, as administrators give it: behind `#`, where no log sees it. */
const invited = () => new URLSearchParams(location.hash.slice(1)).get('account-invite') ?? '';

export class SignIn {
  /** @param {() => void} redraw */
  constructor(redraw) {
    this._redraw = redraw;
    this._registering = invited() !== '';
    this._busy = false;
    this._failed = '';
    /** @type {'open' | 'invite' | 'closed' | null} null: not known */
    this._registration = null;
    request('GET', '/api/server').then(
      (server) => {
        this._registration = server.registration;
        redraw();
      },
      () => {},
    );
  }

  /** @param {string} lead why it is asked for */
  view(lead) {
    const lets = this._registration === 'open' || this._registration === 'invite';
    const registering = this._registering && lets;
    const wantsInvite = registering && (this._registration === 'invite' || invited() !== '');
    return html`
      <section class="panel sign-in" aria-labelledby="sign-in-title">
        <h1 id="sign-in-title">${registering ? t.register : t.signIn}</h1>
        <p>${lead}</p>
        ${this._registration === 'closed' && invited() !== ''
          ? html`<div class="notice warn" role="alert">${icon('warning')}<p>${t.accountInviteWorthless}</p></div>`
          : nothing}
        <form class="stack" @submit=${(/** @type {SubmitEvent} */ event) => this._submit(event, registering)}>
          <label class="field"><span>${t.email}</span>
            <input name="email" type="email" autocomplete="username" required maxlength="254" /></label>
          <label class="field"><span>${t.password}</span>
            <input name="password" type="password" required maxlength="72"
              autocomplete=${registering ? 'new-password' : 'current-password'} /></label>
          ${wantsInvite
            ? html`<label class="field"><span>${t.accountInvite}</span>
                <input name="invite" required maxlength="512" autocomplete="off" .value=${invited()} /></label>`
            : nothing}
          ${this._failed ? html`<p class="error" role="alert">${this._failed}</p>` : nothing}
          <button class="primary" ?disabled=${this._busy}>${registering ? t.register : t.signIn}</button>
        </form>
        ${!lets
          ? nothing
          : html`<button class="quiet" @click=${() => {
              this._registering = !registering;
              this._failed = '';
              this._redraw();
            }}>${registering ? t.haveAccount : t.needAccount}</button>`}
      </section>`;
  }

  /** @param {SubmitEvent} event @param {boolean} registering */
  async _submit(event, registering) {
    event.preventDefault();
    const form = new FormData(/** @type {HTMLFormElement} */ (event.target));
    const text = (/** @type {string} */ name) => String(form.get(name) ?? '');
    this._busy = true;
    this._failed = '';
    this._redraw();
    try {
      if (registering) {
        await session.register(text('email'), text('password'), text('invite').trim() || undefined);
        history.replaceState(null, '', location.pathname);
      } else {
        await session.signIn(text('email'), text('password'));
      }
    } catch (error) {
      const { code } = /** @type {import('../api.js').RelayError} */ (error);
      this._failed = code === 'invalid_credentials' ? t.wrongCredentials : t.describe(error);
    }
    this._busy = false;
    this._redraw();
  }
}

/** Who is signed in, and the way out; for the bar at the top. */
export function accountMenu() {
  if (!session.account) return nothing;
  return html`<span class="account"><span class="email">${session.account.email}</span>
    <button class="quiet compact" type="button" @click=${signOut}>${t.signOut}</button></span>`;
}

async function signOut() {
  try {
    await session.signOut();
  } catch (error) {
    toast(t.stillSignedIn(t.describe(error)), 'bad');
  }
}
