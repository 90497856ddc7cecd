/**
 * `/listen/CODE`: into a room and hear it.
 *
 * The code stands in the path, an invite behind `#`, where no server sees it. Playing begins with a
 * press: browsers let no page sound by itself.
 * @module
 */
import { Listener, joinRoom } from '../client/relay-client.js';
import { send, session } from './api.js';
import { coalesced, kept, render, tabStorage } from './dom.js';
import { page } from './listen-view.js';
import { Meters } from './meters.js';
import { Presets } from './presets.js';
import { drawShell, toast, toastError } from './shell.js';
import { restingMix } from './strips.js';
import { describeError, texts } from './texts.js';
import { Awake, beHeard, tellSystem } from './playing.js';

/** Errors after which another try needs other words from whoever listens. */
const UNKNOWN_TO_ROOM = ['invalid_credentials', 'room_not_found', 'room_closed', 'banned'];

const main = /** @type {HTMLElement} */ (document.getElementById('main'));
const draw = coalesced(() => {
  document.title = `${state.roomName || texts.listen.title} · ${texts.brand}`;
  render(page(state, actions), main);
});

const code = codeOf(location).trim().toUpperCase();

/** @param {Location} location @returns {string} '' if it names no room */
function codeOf({ pathname, search }) {
  try {
    return decodeURIComponent(pathname.split('/')[2] ?? new URLSearchParams(search).get('code') ?? '');
  } catch {
    return ''; // whoever typed that may type a code
  }
}

/** What the page shows; see listen-view.js. */
const state = {
  code,
  invite: new URLSearchParams(location.hash.slice(1)).get('invite') ?? undefined,
  password: '',
  /** Whether a password is asked for: by what the list of rooms says, or because one was refused. */
  wantsPassword: false,
  nickname: /** @type {string} */ (kept.get('nickname') ?? ''),
  roomName: '',
  listenerCount: /** @type {number | null} */ (null),
  /** @type {Listener | null} */
  listener: null,
  entering: false,
  /** Connections that did not come about, as long as none did. */
  failures: 0,
  /** @type {string} why it does not play */
  problem: '',
  volume: /** @type {number} */ (kept.get('volume') ?? 80),
  muted: false,
  awake: /** @type {boolean} */ (kept.get('awake') ?? true),
  presets: new Presets(draw),
  meters: new Meters(levels),
  sides: new Meters(levels),
};

/** @returns {ReturnType<Listener['levels']> | null} */
function levels() {
  return state.listener?.levels() ?? null;
}

/** @type {AudioContext | null} one for the life of the page; made in a press */
let audio = null;
let presses = 0; // what a press began is over with the next one
const awake = new Awake();

const actions = {
  redraw: draw,
  /** @param {Partial<typeof state>} change */
  change(change) {
    Object.assign(state, change);
    draw();
  },
  /** Play or stop: what the big button does. */
  toggle() {
    if (state.listener || state.entering) void stop();
    else void play();
  },
  /** @param {number} volume 0…100 */
  setVolume(volume) {
    state.volume = volume;
    state.muted = false;
    kept.set('volume', volume);
    applyVolume();
  },
  /** Lets sound that the browser holds back be heard; runs in a press. */
  resume() {
    void audio?.resume();
  },
  toggleMuted() {
    state.muted = !state.muted;
    applyVolume();
  },
  /** @param {boolean} wanted */
  setAwake(wanted) {
    state.awake = wanted;
    kept.set('awake', wanted);
    follow();
  },
  /** @param {'mix' | 'multichannel'} mode */
  async setMode(mode) {
    keep({ mode });
    try {
      await state.listener?.setMode(mode);
    } catch (error) {
      toastError(error);
    }
    draw();
  },
  /** @param {import('../client/relay-client.js').Mix} change */
  setMix(change) {
    state.listener?.setMix(change);
  },
  resetMix() {
    state.listener?.setMix(restingMix(state.listener.mix.faders.length));
  },
};

/** Into the room, and sound. Runs in the press, as far as the first `await`. */
async function play() {
  const press = ++presses;
  if (audio === null) {
    audio = new AudioContext({ latencyHint: 'interactive' });
    audio.addEventListener('statechange', draw);
  }
  void audio.resume();
  beHeard();
  Object.assign(state, { entering: true, problem: '' });
  kept.set('nickname', state.nickname || undefined);
  follow();
  try {
    const access = remembered() ?? (await enter());
    if (press !== presses) return; // stopped meanwhile
    state.roomName = access.roomName;
    const listener = new Listener({
      server: access.server,
      roomId: access.roomId,
      roomToken: access.roomToken,
      nickname: state.nickname || undefined,
      ...room().setup,
      rejoin: enter,
      audioContext: audio,
    });
    follow(listener);
    state.listener = listener;
    applyVolume();
    await listener.start();
    if (press === presses) state.entering = false;
  } catch (error) {
    if (press === presses) failed(/** @type {any} */ (error));
  }
  follow();
}

async function stop() {
  const press = ++presses;
  const { listener } = state;
  Object.assign(state, { listener: null, entering: false });
  follow();
  await listener?.stop();
  if (press === presses) await audio?.suspend();
}

/** A token for the room, kept for reloads of this tab. @returns {Promise<import('../client/relay-client.js').Joined & { server: string }>} */
async function enter() {
  await session.resume().catch(() => null); // with an account presets are the account's
  const joined = await joinRoom(location.origin, {
    roomCode: state.code,
    password: state.password || undefined,
    invite: state.invite,
    nickname: state.nickname || undefined,
    accessToken: session.accessToken ?? undefined,
  });
  const { server, roomId, roomToken, roomName } = joined;
  kept.set(`room:${state.code}`, { server, roomId, roomToken, roomName }, tabStorage());
  return joined;
}

/** What an earlier `enter` of this tab got. */
function remembered() {
  return kept.get(`room:${state.code}`, tabStorage());
}

function forget() {
  kept.set(`room:${state.code}`, undefined, tabStorage());
}

/** @param {{ code?: string, detail?: string }} error */
function failed(error) {
  if (UNKNOWN_TO_ROOM.includes(error.code ?? '')) {
    forget();
    state.wantsPassword = error.code === 'invalid_credentials';
    state.problem = error.code === 'invalid_credentials' && !state.password && !state.invite
      ? texts.listen.passwordHint
      : describeError(error);
    state.invite = undefined;
  } else {
    state.problem = describeError(error);
  }
  void stop();
  if (state.wantsPassword) requestAnimationFrame(() => document.getElementById('password')?.focus());
}

/** What is kept of this room: how it was heard last. */
function room() {
  const { mix, mode } = kept.get(`mix:${state.code}`) ?? {};
  return { setup: { mix, mode: mode === 'multichannel' ? mode : 'mix' } };
}

/** @param {{ mix?: object, mode?: string }} change */
function keep(change) {
  kept.set(`mix:${state.code}`, { ...kept.get(`mix:${state.code}`), ...change });
}

/** @type {ReturnType<typeof setTimeout> | undefined} */
let keeping;

/** Draws what a listener tells. @param {Listener} [listener] a new one */
function follow(listener) {
  draw();
  const current = listener ?? state.listener;
  const live = current?.state === 'live';
  void awake.want(state.awake && current !== null);
  tellSystem(state.roomName, current === null ? 'paused' : 'playing', actions.toggle);
  document.documentElement.classList.toggle('on-air', live);
  if (!listener) return;
  const on = (/** @type {string} */ type, /** @type {(detail: any) => void} */ heard) =>
    listener.addEventListener(type, (event) => {
      if (state.listener === listener) heard(/** @type {CustomEvent} */ (event).detail);
      draw();
    });
  on('statechange', () => follow());
  let registered = false;
  state.failures = 0;
  on('room', ({ roomName, listenerCount }) => {
    registered = true;
    Object.assign(state, { roomName, listenerCount, failures: 0 });
  });
  on('format', () => state.presets.ask(listener));
  on('statistics', () => {});
  on('mix', ({ mix, by }) => {
    // A dragged fader is written when it rests.
    clearTimeout(keeping);
    keeping = setTimeout(() => keep({ mix }), 300);
    if (by === 'owner') toast(texts.listen.mixChanged);
  });
  on('error', ({ error }) => {
    console.info('relay:', error.code, error.message);
    if (!registered && error.code === 'unreachable') state.failures++;
  });
  on('token', ({ roomToken }) => {
    const before = remembered();
    if (before) kept.set(`room:${state.code}`, { ...before, roomToken }, tabStorage());
  });
  on('closed', ({ code: why, reason }) => {
    if (why !== 'kicked') forget(); // who was kicked may come again, as the same participant
    const known = /** @type {Record<string, string>} */ (texts.listen.closed);
    if (known[why]) {
      state.problem = known[why];
      void stop();
    } else {
      failed({ code: why, detail: reason }); // what entering anew was answered with
    }
  });
}

function applyVolume() {
  if (state.listener) {
    state.listener.volume = (state.volume / 100) ** 2; // as loudness is felt, roughly
    state.listener.muted = state.muted;
  }
  draw();
}

/** What the list of public rooms says of this one, before anybody enters. */
async function look() {
  if (!state.code || state.invite) return;
  const { rooms } = await send('GET', '/api/rooms/public', { query: { limit: 100 } });
  const found = rooms.find((/** @type {any} */ one) => one.roomCode === state.code);
  if (!found || state.roomName) return;
  state.roomName = found.name;
  state.listenerCount = found.listenerCount;
  state.wantsPassword = !found.open && !remembered();
  draw();
}

addEventListener('pagehide', () => {
  clearTimeout(keeping);
  if (state.listener) keep({ mix: state.listener.mix });
});
drawShell('');
state.roomName = remembered()?.roomName ?? '';
draw();
void look().catch(() => {}); // it can be heard all the same

/** For tests and the curious: what plays. */
Object.defineProperty(window, 'listening', { get: () => state.listener });
