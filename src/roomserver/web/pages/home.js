/**
 * `/`: the public rooms, and the way into any other.
 * @module
 */
import { send } from './api.js';
import { coalesced, html, icon, nothing, render, repeat } from './dom.js';
import { drawShell, toastError } from './shell.js';
import { describeError, texts } from './texts.js';

const AGAIN_MS = 10_000;
const PAGE = 50;

/**
 * @typedef {{ roomId: string, roomCode: string, name: string, state: string, live: boolean,
 *   open: boolean, listenerCount: number, createdAt: number }} PublicRoom
 */
/** @type {{ rooms: PublicRoom[] | null, more: boolean, pages: number, problem: string | null }} */
const state = { rooms: null, more: false, pages: 1, problem: null };
const main = /** @type {HTMLElement} */ (document.getElementById('main'));
const draw = coalesced(() => render(page(), main));

const page = () => html`
  <div class="hero">
    <h1>${texts.home.lead}</h1>
    <form class="enter" action="/listen" @submit=${enter}>
      <div class="field">
        <label for="code">${texts.home.code}</label>
        <div class="row">
          <input id="code" class="code" name="code" required minlength="4" maxlength="64" autocomplete="off"
            autocapitalize="characters" spellcheck="false" enterkeyhint="go" aria-describedby="code-hint">
          <button class="primary" type="submit">${texts.home.go}</button>
        </div>
        <span class="hint" id="code-hint">${texts.home.codeHint}</span>
      </div>
    </form>
  </div>
  <section aria-labelledby="rooms-title" class="stack">
    <h2 id="rooms-title">${texts.home.public}</h2>
    ${state.problem ? html`<p class="notice bad" role="alert">${icon('warning')}<span>${state.problem}</span></p>` : nothing}
    ${list()}
  </section>`;

function list() {
  if (state.rooms === null) return state.problem ? nothing : html`<p class="soft">${texts.home.loading}</p>`;
  if (state.rooms.length === 0) {
    return html`<div class="panel empty"><p>${texts.home.none}</p><p class="soft">${texts.home.noneHint}</p></div>`;
  }
  return html`
    <ul class="rooms">${repeat(sorted(state.rooms), (/** @type {PublicRoom} */ room) => room.roomId, card)}</ul>
    ${state.more ? html`<div><button type="button" @click=${more}>${texts.home.more}</button></div>` : nothing}`;
}

/** @param {PublicRoom} room */
function card(room) {
  const [kind, text] = room.live
    ? ['good pulsing', texts.home.live]
    : room.state === 'suspended'
      ? ['warn', texts.home.suspended]
      : ['', texts.home.waiting];
  return html`
    <li><a class="room" href="/listen/${room.roomCode}">
      <span class="name">${room.name || texts.home.unnamed(room.roomCode)}</span>
      <span class="badge ${kind}">${text}</span>
      <span class="facts soft">
        <span>${icon('people')} ${texts.home.listeners(room.listenerCount)}</span>
        <span class="code">${room.roomCode}</span>
        ${room.open ? nothing : html`<span>${icon('lock')} ${texts.home.needsPassword}</span>`}
      </span>
    </a></li>`;
}

/** Live ones first, then those with most people; the server has them newest first. @param {PublicRoom[]} rooms */
function sorted(rooms) {
  return [...rooms].sort(
    (a, b) => Number(b.live) - Number(a.live) || b.listenerCount - a.listenerCount || b.createdAt - a.createdAt,
  );
}

/** @param {SubmitEvent} event */
function enter(event) {
  event.preventDefault();
  const data = new FormData(/** @type {HTMLFormElement} */ (event.target));
  location.assign(`/listen/${encodeURIComponent(String(data.get('code')).trim().toUpperCase())}`);
}

async function more() {
  state.pages += 1;
  await load().catch(toastError);
}

/** Everything that was shown is asked for again: rooms come and go between pages. */
async function load() {
  /** @type {PublicRoom[]} */
  const rooms = [];
  let cursor = null;
  for (let n = 0; n < state.pages; n += 1) {
    const answer = await send('GET', '/api/rooms/public', { query: { limit: PAGE, cursor } });
    rooms.push(...answer.rooms);
    cursor = answer.next;
    if (cursor === null) break;
  }
  Object.assign(state, { rooms, more: cursor !== null, problem: null });
  draw();
}

async function keepLooking() {
  if (!document.hidden) {
    try {
      await load();
    } catch (error) {
      state.problem = describeError(/** @type {any} */ (error));
      draw();
    }
  }
  setTimeout(keepLooking, AGAIN_MS);
}

drawShell('rooms');
draw();
void keepLooking();
document.addEventListener('visibilitychange', () => {
  if (!document.hidden) void load().catch(() => {});
});
