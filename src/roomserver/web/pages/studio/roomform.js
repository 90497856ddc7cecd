/**
 * Making a room, changing one, and another password for it.
 * @module
 */

import { html, nothing } from '../dom.js';
import { ask } from '../shell.js';
import { t } from './texts.js';

/** The fields that a room is made and changed with. @param {any} [room] the one that is changed */
function fields(room) {
  return html`
    <label class="field"><span>${t.roomName}</span>
      <input name="name" maxlength="120" .value=${room?.name ?? ''} placeholder=${t.roomNameTold} /></label>
    ${room ? nothing : passwordField()}
    <label class="check"><input type="checkbox" name="public" .checked=${Boolean(room?.public)} />
      <span>${t.public}<small>${t.publicTold}</small></span></label>
    <label class="check"><input type="checkbox" name="permanent" .checked=${Boolean(room?.permanent)} />
      <span>${t.permanent}<small>${t.permanentTold}</small></span></label>
    <label class="field"><span>${t.maxListeners}</span>
      <input name="maxListeners" type="number" min="1" max="1000000" .value=${String(room?.maxListeners ?? '')}
        placeholder=${t.asServer} /></label>
    ${room
      ? html`<label class="field"><span>${t.grace}</span>
          <input name="graceS" type="number" min="0" max="86400" .value=${String(room.graceS ?? '')} placeholder=${t.asServer} /></label>`
      : nothing}`;
}

function passwordField() {
  return html`<label class="field"><span>${t.roomPassword}</span>
    <input name="password" type="text" maxlength="72" autocomplete="off" spellcheck="false" />
    <small>${t.roomPasswordTold}</small></label>`;
}

/** @param {FormData} form @param {string} name */
function numberIn(form, name) {
  const text = String(form.get(name) ?? '').trim();
  return text === '' ? null : Number(text);
}

/** @param {FormData} form */
function read(form) {
  return {
    name: String(form.get('name') ?? '').trim() || null,
    public: form.has('public'),
    permanent: form.has('permanent'),
    maxListeners: numberIn(form, 'maxListeners'),
  };
}

/** @returns {Promise<Record<string, unknown> | null>} a body of `POST /auth/room/create` */
export function askNewRoom() {
  return ask(t.newRoom, fields(), {
    confirm: t.create,
    read: (form) => ({ ...read(form), password: String(form.get('password') ?? '') || null }),
  });
}

/** @param {any} room @returns {Promise<Record<string, unknown> | null>} a body of `PATCH` */
export function askRoomChanges(room) {
  return ask(t.roomSettings, fields(room), {
    confirm: t.save,
    read: (form) => ({ ...read(form), graceS: numberIn(form, 'graceS') }),
  });
}

/** @returns {Promise<{ password: string | null, dropListeners: boolean } | null>} a body of `POST …/password` */
export function askRoomPassword() {
  const content = html`
    ${passwordField()}
    <label class="check"><input type="checkbox" name="drop" />
      <span>${t.dropListeners}<small>${t.dropListenersTold}</small></span></label>`;
  return ask(t.changePassword, content, {
    confirm: t.changePassword,
    read: (form) => ({ password: String(form.get('password') ?? '') || null, dropListeners: form.has('drop') }),
  });
}

/** @param {any} room @returns {Promise<true | null>} */
export function askToClose(room) {
  return ask(t.closeWhich(room.name), html`<p>${t.closeTold}</p>`, { confirm: t.closeRoom, danger: true });
}
