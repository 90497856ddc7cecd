/**
 * The Broadcast page: sign in, choose a room, go live.
 * @module
 */

import { request, requestAll, session } from './api.js';
import { coalesced, html, icon, nothing, render } from './dom.js';
import { Meters } from './meters.js';
import { Awake } from './playing.js';
import { announce, ask, drawShell, toast, toastError } from './shell.js';
import { audiencePanel } from './studio/audience.js';
import { duration, number } from './studio/format.js';
import { announceTrouble, inputsPanel } from './studio/inputs.js';
import { Lamps } from './studio/lamps.js';
import { askNewRoom, askRoomChanges, askRoomPassword, askToClose } from './studio/roomform.js';
import { shareDialog } from './studio/share.js';
import { SignIn, accountMenu } from './studio/signin.js';
import { Studio, forget, remembered } from './studio/studio.js';
import { t } from './studio/texts.js';
import { uploadPanel } from './studio/upload.js';

/** @typedef {import('./studio/studio.js').Remembered} Remembered */

const NOTHING = { peak: [NaN, NaN] }; // there is no master on this page

const main = /** @type {HTMLElement} */ (document.getElementById('main'));
const draw = coalesced(() => {
  drawShell('broadcast', accountMenu());
  render(page(), main);
});
const signIn = new SignIn(draw);
const awake = new Awake(); // a screen that goes off takes the microphone with it, on telephones
const levels = () => studio?.broadcaster?.levels() ?? null;
const lamps = new Lamps(() => studio?.broadcaster ?? null, draw);
const meters = new Meters(() => {
  const channels = levels();
  return channels && { master: NOTHING, channels };
});

/** @type {Studio | null} */
let studio = null;
/** @type {any[] | null} own rooms that are open; null: not asked yet */
let rooms = null;
let begun = false; // whether it is known who is signed in
let busy = false;
/** @type {Remembered | null} what was on when the page was reloaded */
let resumable = remembered();

const view = {
  fail,
  lamps,
  meters,
  /** Does something, and tells what went wrong. @param {() => Promise<unknown>} what */
  attempt(what) {
    void run(what);
  },
};

/** @param {() => Promise<unknown>} what */
async function run(what) {
  const there = studio;
  busy = true;
  draw();
  try {
    await what();
  } catch (error) {
    if (!there?.disposed) fail(error); // of a room that was left nobody wants to know
  } finally {
    busy = false;
    draw();
  }
}

/** @param {unknown} error */
function fail(error) {
  const { name, code } = /** @type {any} */ (error);
  if (code === 'stopped') return; // by whoever sits here
  const told = t.inputErrors[/** @type {'no_audio'} */ (name === 'RelayError' ? code : name)];
  const isOurs = name !== 'RelayError' || /** @type {any} */ (error).status === undefined;
  if (told && isOurs) toast(told, 'bad');
  else if (code === 'room_closed' || code === 'room_not_found') leave(t.roomGone);
  else toastError(error);
}

function page() {
  if (!begun) return html`<p class="empty" role="status">${t.loading}</p>`;
  // What is on air stays on air: it needs no account until the room is to be managed.
  if (!session.account && studio?.isLive) {
    return html`<div class="notice warn" role="alert">${icon('warning')}<p>${t.signedOutLive}</p></div>
      ${signIn.view(t.signInToBroadcast)} ${studioView(studio)}`;
  }
  if (!session.account) return signIn.view(t.signInToBroadcast);
  return studio ? studioView(studio) : roomsView();
}

/* Choosing a room */

async function loadRooms() {
  rooms = await requestAll('/api/broadcaster/rooms', 'rooms', { active: true });
  const kept = resumable;
  const found = kept && rooms.find((room) => room.roomId === kept.roomId);
  if (kept && !found) {
    forget();
    resumable = null;
  }
  const named = new URLSearchParams(location.search).get('room');
  const room = found ?? rooms.find((one) => one.roomCode === named || one.roomId === named);
  if (room && room.listenerCount !== null) enter(room);
  draw();
}

function roomsView() {
  return html`
    <div class="page-head"><h1>${t.yourRooms}</h1>
      <button class="primary" ?disabled=${busy} @click=${() => view.attempt(createRoom)}>${icon('plus')} ${t.newRoom}</button></div>
    ${rooms === null
      ? html`<p class="empty" role="status">${t.loading}</p>`
      : rooms.length === 0
        ? html`<p class="panel empty">${t.noRooms}</p>`
        : html`<ul class="rooms">${rooms.map(roomCard)}</ul>`}`;
}

/** @param {any} room */
function roomCard(room) {
  const elsewhere = room.listenerCount === null;
  return html`
    <li><button class="room" ?disabled=${elsewhere} @click=${() => enter(room)}>
      <span class="name">${room.name}</span>
      <span class="badge ${room.live ? 'good pulsing' : room.state === 'suspended' ? 'warn' : ''}">${elsewhere ? t.onAnotherServer : room.live ? t.onAir : t.roomStates[/** @type {'waiting'} */ (room.state)]}</span>
      <span class="facts soft"><span class="code">${room.roomCode}</span>
        ${elsewhere ? nothing : html`<span>${t.listenerCount(room.listenerCount)}</span>`}
        <span>${room.open ? t.open : t.withPassword}</span></span>
    </button></li>`;
}

async function createRoom() {
  const wish = await askNewRoom();
  if (!wish) return;
  const { roomId } = await request('POST', '/auth/room/create', { body: wish });
  enter(await request('GET', `/api/broadcaster/rooms/${roomId}`));
}

/** @param {any} room */
function enter(room) {
  studio = new Studio(room);
  let state = studio.state;
  studio.addEventListener('change', () => {
    if (studio && studio.state !== state) {
      state = studio.state;
      announce(t.states[state]);
      void awake.want(studio.isLive);
    }
    announceTrouble(studio?.broadcaster?.inputs ?? []);
    if (studio?.room.state === 'closed' && !studio.isLive) leave(t.roomGone); // elsewhere
    else draw();
  });
  history.replaceState(null, '', `?room=${room.roomCode}`);
  document.title = `${room.name} · ${t.broadcast}`;
  draw();
}

/** @param {string} [why] */
function leave(why) {
  studio?.dispose();
  studio = null;
  void awake.want(false);
  rooms = null;
  resumable = null;
  forget();
  document.title = t.broadcast;
  history.replaceState(null, '', location.pathname);
  if (why) toast(why, 'bad');
  if (session.account) loadRooms().catch(fail);
  draw();
}

/* The studio */

/** @param {Studio} studio */
function studioView(studio) {
  const { room } = studio;
  return html`
    <div class="page-head studio-head">
      <div>
        <button class="quiet compact back" ?disabled=${studio.isLive} @click=${() => leave()}>${icon('back')} ${t.otherRoom}</button>
        <h1>${room.name}</h1>
        <p class="soft"><span class="code">${room.roomCode}</span> · ${room.open ? t.open : t.withPassword}${room.public ? ` · ${t.publicShort}` : ''}</p>
      </div>
      <div class="head-actions">
        <button @click=${() => shareDialog(room, fail)}>${t.share}</button>
        ${roomMenu(studio)}
      </div>
    </div>
    ${notices(studio)}
    <div class="studio">
      ${transport(studio)}
      ${inputsPanel(studio, view)}
      <div class="side">${audiencePanel(studio, view)} ${uploadPanel(studio)}</div>
    </div>`;
}

/** @param {Studio} studio */
function transport(studio) {
  const { state } = studio;
  const inputs = studio.broadcaster?.inputs ?? [];
  const ready = inputs.length > 0;
  const seconds = studio.liveSince === null ? null : (Date.now() - studio.liveSince) / 1000;
  return html`
    <section class="panel transport ${state} ${studio.isSilenced ? 'silenced' : ''}" aria-label=${t.transport}>
      <div class="on-air" role="status"><span class="lamp" aria-hidden="true"></span>
        <strong>${studio.room.held ? t.inBreak : studio.isSilenced ? t.onAirSilent : t.states[state]}</strong></div>
      <dl class="figures">
        <div><dt>${t.time}</dt><dd>${duration(seconds)}</dd></div>
        <div><dt>${t.listeners}</dt><dd>${number(studio.total)}</dd></div>
        <div><dt>${t.channels}</dt><dd>${number(studio.broadcaster?.channelNames.length ?? 0)}</dd></div>
      </dl>
      ${studio.isLive
        ? html`<button class="go stop" @click=${() => view.attempt(() => stop(studio))}>${icon('stop')} ${t.stop}</button>`
        : html`<button class="go primary" ?disabled=${!ready || busy} aria-describedby="go-told"
            @click=${() => view.attempt(() => studio.goLive())}>${t.goLive}</button>`}
      <p id="go-told" class="soft">${studio.isLive ? t.liveTold : ready ? t.readyTold : t.addFirst}</p>
    </section>`;
}

/** @param {Studio} studio */
async function stop(studio) {
  const sure = studio.total === 0 || (await ask(t.stopTitle, html`<p>${t.stopTold(studio.total)}</p>`, { confirm: t.stop, danger: true }));
  if (sure) await studio.stop();
}

/** @param {Studio} studio */
function notices(studio) {
  /** @type {unknown[]} */
  const found = window.isSecureContext
    ? []
    : [html`<div class="notice bad" role="alert">${icon('warning')}<p>${t.inputErrors.insecure_context}</p></div>`];
  const kept = /** @type {Remembered | null} */ (resumable);
  if (kept && !studio.isLive && kept.inputs.length) {
    found.push(html`<div class="notice actions" role="status"><p>${kept.live ? t.wasLive : t.hadInputs}</p>
      <button class="primary" ?disabled=${busy} @click=${() => view.attempt(() => resume(studio, kept))}>${kept.live ? t.resumeLive : t.restoreInputs}</button>
      <button class="quiet" @click=${() => { resumable = null; draw(); }}>${t.notNow}</button></div>`);
  }
  if (studio.isSilenced) {
    found.push(html`<div class="notice bad actions" role="alert">${icon('warning')}<p>${t.soundStopped}</p>
      <button class="primary" @click=${() => studio.letRun()}>${t.letRun}</button></div>`);
  }
  if (studio.trouble && studio.state === 'reconnecting') {
    found.push(html`<div class="notice warn" role="status">${icon('warning')}<p>${t.connectionLost(t.describe(studio.trouble))}</p></div>`);
  }
  if (studio.ended) {
    const { code } = studio.ended;
    const text = t.endings[/** @type {'kicked'} */ (code)] ?? t.endedOtherwise(studio.ended.reason);
    found.push(html`<div class="notice bad actions" role="alert"><p>${text}</p>
      ${code === 'room_closed' ? nothing : html`<button @click=${() => view.attempt(() => studio.goLive())}>${code === 'source_taken_over' ? t.takeBack : t.goLiveAgain}</button>`}</div>`);
  }
  if (studio.room.held) {
    found.push(html`<div class="notice actions" role="status"><p>${t.heldUntil(studio.room.suspendedUntil)}</p>
      <button class="primary" @click=${() => view.attempt(() => studio.resume())}>${t.resume}</button></div>`);
  }
  return found;
}

/** Goes on after a reload. @param {Studio} studio @param {Remembered} kept */
async function resume(studio, kept) {
  resumable = null;
  const missing = [];
  for (const input of kept.inputs) {
    if (input.kind === 'file' || input.kind === 'tab') {
      missing.push(input.label); // only a person can choose it again
      continue;
    }
    try {
      await studio.add(input);
    } catch (error) {
      missing.push(input.label);
    }
  }
  if (studio.disposed) return;
  if (missing.length) toast(t.addAgain(missing), 'bad');
  if (!studio.broadcaster?.inputs.length || missing.length) return;
  studio.restoreChannels(kept);
  if (kept.live) await studio.goLive();
}

/** @param {Studio} studio */
function roomMenu(studio) {
  const { room } = studio;
  const item = (/** @type {string} */ text, /** @type {() => Promise<unknown>} */ what, danger = false) =>
    html`<li><button class="quiet ${danger ? 'danger' : ''}" @click=${(/** @type {any} */ event) => {
      event.target.closest('details').open = false;
      view.attempt(what);
    }}>${text}</button></li>`;
  return html`
    <details class="menu" @keydown=${closeOnEscape} @focusout=${closeOnLeave}>
      <summary>${t.room}</summary>
      <ul>
        ${item(t.roomSettings, async () => {
          const changes = await askRoomChanges(room);
          if (changes) await studio.change(changes);
        })}
        ${item(t.changePassword, async () => {
          const wish = await askRoomPassword();
          if (!wish) return;
          const { open, droppedListeners } = await studio.ask('POST', '/password', { body: wish });
          toast(t.passwordChanged(open, droppedListeners), 'good');
          await studio.refresh();
        })}
        ${room.held || room.state === 'waiting' ? nothing : item(t.takeBreak, () => takeBreak(studio))}
        <li><a href="/dashboard#/rooms/${room.roomId}">${t.inDashboard}</a></li>
        ${item(t.closeRoom, async () => {
          if (await askToClose(room)) {
            await studio.close();
            leave();
          }
        }, true)}
      </ul>
    </details>`;
}

/** @param {KeyboardEvent} event */
function closeOnEscape(event) {
  const menu = /** @type {HTMLDetailsElement} */ (event.currentTarget);
  if (event.key !== 'Escape' || !menu.open) return;
  menu.open = false;
  menu.querySelector('summary')?.focus();
}

/** @param {FocusEvent} event */
function closeOnLeave(event) {
  const menu = /** @type {HTMLDetailsElement} */ (event.currentTarget);
  if (event.relatedTarget instanceof Node && !menu.contains(event.relatedTarget)) menu.open = false;
}

/** @param {Studio} studio */
async function takeBreak(studio) {
  const content = html`<p>${t.breakTold}</p>
    <label class="field"><span>${t.breakMinutes}</span><input name="minutes" type="number" min="1" max="10080" value="15" required /></label>`;
  const minutes = await ask(t.takeBreak, content, { confirm: t.takeBreak, read: (form) => Number(form.get('minutes')) });
  if (minutes) await studio.suspend(minutes * 60);
}

/* Beginning */

addEventListener('beforeunload', (event) => {
  if (studio?.isLive) event.preventDefault();
});

session.addEventListener('change', () => {
  if (session.account && !studio) loadRooms().catch(fail);
  else if (!session.account && studio && !studio.isLive) leave();
  draw();
});

setInterval(() => studio?.isLive && draw(), 1000); // the time it has been on

draw();
try {
  await session.resume();
} catch (error) {
  toastError(error);
}
begun = true;
draw();
