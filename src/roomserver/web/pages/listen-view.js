/**
 * How the page of a listener looks.
 * @module
 */
import { classMap, html, icon, live, nothing, ref } from './dom.js';
import { canStayAwake } from './playing.js';
import { strips } from './strips.js';
import { texts } from './texts.js';

const t = texts.listen;
const FAILURES = 3; // to connect for the first time; then it is no accident
const BADGES = {
  live: 'good pulsing',
  waiting: 'warn',
  suspended: 'warn',
  buffering: 'warn pulsing',
  held: 'warn',
  reconnecting: 'bad pulsing',
  connecting: 'pulsing',
  joining: 'pulsing',
  closed: 'bad',
  idle: '',
};

/** @param {any} state @param {any} actions of listen.js */
export function page(state, actions) {
  if (!state.code) return codeForm();
  const { listener } = state;
  return html`
    <section class="panel player" aria-label=${t.title}>
      ${head(state, actions)}
      ${listener ? html`${output(state, actions)}${connection(listener, state, actions)}` : entry(state, actions)}
    </section>
    ${listener ? notice(listener) : nothing}
    ${listener ? mixer(listener, state, actions) : nothing}`;
}

const codeForm = () => html`
  <form class="panel code-form" @submit=${(/** @type {SubmitEvent} */ event) => {
    event.preventDefault();
    const data = new FormData(/** @type {HTMLFormElement} */ (event.target));
    location.assign(`/listen/${encodeURIComponent(String(data.get('code')).trim().toUpperCase())}`);
  }}>
    <h1>${texts.home.enter}</h1>
    <div class="field">
      <label for="code">${t.code}</label>
      <input id="code" class="code" name="code" required minlength="4" maxlength="64" autocomplete="off"
        autocapitalize="characters" spellcheck="false" aria-describedby="code-hint">
      <span class="hint" id="code-hint">${texts.home.codeHint}</span>
    </div>
    <div><button class="primary" type="submit">${texts.home.go}</button></div>
  </form>`;

/** @param {any} state @param {any} actions */
function head(state, actions) {
  const { listener } = state;
  const held = listener?.state === 'buffering' && listener.audioContext?.state !== 'running';
  const now = held ? 'held' : (listener?.state ?? (state.entering ? 'joining' : 'idle'));
  const playing = listener !== null || state.entering;
  const until = listener?.room.suspendedUntil;
  const about = now === 'suspended' && until
    ? `${t.about.suspended} ${t.until(new Date(until / 1000).toLocaleTimeString([], { timeStyle: 'short' }))}`
    : now === 'reconnecting' && state.failures >= FAILURES
      ? t.unconnected[location.protocol === 'https:' ? 'https' : 'http']
    : t.about[/** @type {keyof typeof t.about} */ (now)];
  return html`
    <div class="head">
      <button type=${playing ? 'button' : 'submit'} form=${playing ? nothing : 'entry'}
        class="play ${classMap({ playing })}" aria-label=${playing ? t.stop : t.play} title=${playing ? t.stop : t.play}
        @click=${playing ? actions.toggle : nothing}>${icon(playing ? 'stop' : 'play')}</button>
      <div class="titles">
        <h1>${state.roomName || t.room(state.code)}</h1>
        <div class="row facts">
          <span class="badge ${BADGES[/** @type {keyof typeof BADGES} */ (now)]}" role="status">
            ${t.state[/** @type {keyof typeof t.state} */ (now)]}</span>
          ${listener && state.listenerCount !== null
            ? html`<span class="soft">${icon('people')} ${t.listeners(state.listenerCount)}</span>`
            : nothing}
          <span class="soft code">${state.code}</span>
        </div>
        ${about ? html`<p class="soft small">${about}</p>` : nothing}
        ${held ? html`<div><button type="button" class="primary compact" @click=${actions.resume}>${t.resume}</button></div>` : nothing}
      </div>
    </div>`;
}

/** @param {any} state @param {any} actions */
function entry(state, actions) {
  const field = (/** @type {string} */ name) => (/** @type {Event} */ event) =>
    actions.change({ [name]: /** @type {HTMLInputElement} */ (event.target).value });
  return html`
    <form id="entry" class="entry" @submit=${(/** @type {SubmitEvent} */ event) => {
      event.preventDefault();
      /** @type {HTMLElement | null} */ (document.querySelector('.play'))?.focus(); // the form goes
      actions.toggle();
    }}>
      ${state.problem
        ? html`<p class="notice bad wide" role="alert">${icon('warning')}<span>${state.problem}</span></p>`
        : nothing}
      ${state.wantsPassword
        ? html`<div class="field">
            <label for="password">${t.password}</label>
            <input id="password" type="password" required autocomplete="current-password" maxlength="72"
              .value=${live(state.password)} @input=${field('password')}>
          </div>`
        : nothing}
      <div class="field">
        <label for="nickname">${t.nickname}</label>
        <input id="nickname" maxlength="64" autocomplete="nickname" aria-describedby="nickname-hint"
          .value=${live(state.nickname)} @input=${field('nickname')}>
        <span class="hint" id="nickname-hint">${t.nicknameHint}</span>
      </div>
      <p class="wide small"><a href="/listen">${t.change}</a></p>
    </form>`;
}

/** @param {any} state @param {any} actions */
const output = (state, actions) => html`
  <div class="output">
    <button type="button" class="quiet icon-only" aria-pressed=${state.muted} aria-label=${t.mute}
      title=${state.muted ? t.unmute : t.mute} @click=${actions.toggleMuted}>${icon(state.muted ? 'muted' : 'volume')}</button>
    <input type="range" min="0" max="100" aria-label=${t.volume} .value=${live(String(state.volume))}
      ${ref((/** @type {HTMLElement | undefined} */ element) => element?.style.setProperty('--filled', `${state.muted ? 0 : state.volume}%`))}
      @input=${(/** @type {Event} */ event) => actions.setVolume(Number(/** @type {HTMLInputElement} */ (event.target).value))}>
    <div class="sides" aria-hidden="true" data-channel="master" ${ref(state.sides.attach)}>
      ${[0, 1].map((side) => html`<span class="meter lying" data-side=${side}><i class="cover"></i><i class="peak"></i></span>`)}
    </div>
  </div>`;

/** @param {any} listener @param {any} state @param {any} actions */
function connection(listener, state, actions) {
  const s = listener.statistics;
  const ms = (/** @type {number} */ value) => (Number.isFinite(value) ? `${Math.round(value)} ms` : '–');
  const figures = [
    [t.figures.latency, ms(s.latencyMs)],
    [t.figures.buffer, `${ms(s.bufferMs)} (${ms(s.targetMs)})`],
    [t.figures.jitter, ms(s.jitterMs)],
    [t.figures.roundTrip, ms(s.rttMs)],
    [t.figures.drift, `${Math.round(s.driftPpm)} ppm`],
    [t.figures.missing, s.framesMissing.toLocaleString()],
    [t.figures.concealed, ms((s.concealedSamples / (listener.format?.sampleRate ?? 48000)) * 1000)],
    [t.figures.underruns, s.underruns.toLocaleString()],
    [t.figures.reconnects, s.reconnects.toLocaleString()],
    [t.figures.received, `${(s.bytesReceived / 1e6).toFixed(1)} MB`],
  ];
  return html`
    <div class="connection">
      <div class="row">
        <span class="quality ${s.quality}"><span class="soft small">${t.quality.label}</span>
          <span class="bars" aria-hidden="true"><i></i><i></i><i></i><i></i></span>
          <strong class="small">${t.quality[/** @type {keyof typeof t.quality} */ (s.quality)]}</strong></span>
        <span class="small"><span class="soft">${t.delay}</span> <strong class="figures">${ms(s.latencyMs)}</strong></span>
      </div>
      <details>
        <summary>${t.figures.title}</summary>
        <dl class="figures-list">${figures.map(([name, value]) => html`<div><dt>${name}</dt><dd class="figures">${value}</dd></div>`)}</dl>
        <p class="soft small">${t.figures.monitoring}</p>
        <label class="check small"><input type="checkbox" .checked=${live(state.awake && canStayAwake)} ?disabled=${!canStayAwake}
          @change=${(/** @type {Event} */ event) => actions.setAwake(/** @type {HTMLInputElement} */ (event.target).checked)}>
          ${t.options.awake} ${canStayAwake ? nothing : html`<span class="soft">(${t.options.awakeMissing})</span>`}</label>
      </details>
    </div>`;
}

/** What this browser, or plain http, does not give. @param {any} listener */
function notice(listener) {
  const { missing, secureContext, fallback } = listener.capabilities;
  if (missing.length === 0) return nothing;
  return html`
    <div class="notice warn">${icon('info')}
      <div class="stack"><strong>${t.missing.title}</strong>
        ${!secureContext && fallback !== 'none'
          ? html`<p>${t.missing.http}</p>`
          : missing.map((/** @type {'audio_worklet'} */ what) => html`<p>${t.missing[what]}</p>`)}
      </div>
    </div>`;
}

/** @param {any} listener @param {any} state @param {any} actions */
function mixer(listener, state, actions) {
  const { format, mode, mix } = listener;
  const m = texts.mixer;
  const choice = (/** @type {'mix' | 'multichannel'} */ value, /** @type {string} */ text, disabled = false) => html`
    <label><input type="radio" name="mode" value=${value} .checked=${live(mode === value)} ?disabled=${disabled}
      @change=${() => actions.setMode(value)}>${text}</label>`;
  const touched = format !== null
    && (mix.faders.some((/** @type {number} */ x) => x !== 1) || mix.pans.some(Boolean) || mix.mutes.some(Boolean)
      || mix.solos.some(Boolean) || mix.master !== 1);
  return html`
    <section class="stack" aria-labelledby="mixer-title">
      <div class="row spread">
        <h2 id="mixer-title">${m.title}</h2>
        <div class="segments" role="radiogroup" aria-label=${m.mode}>
          ${choice('mix', m.server)}
          ${choice('multichannel', m.multichannel, listener.capabilities.fallback !== 'none')}
        </div>
      </div>
      <p class="soft small">${mode === 'mix' ? m.serverHint : m.multichannelHint}</p>
      ${format === null
        ? html`<p class="panel soft">${m.waiting}</p>`
        : html`
          <div class="row spread">
            ${state.presets.template()}
            <div class="row">
              <button type="button" class="compact" ?disabled=${!mix.solos.some(Boolean)}
                @click=${() => actions.setMix({ solos: mix.solos.map(() => false) })}>${m.unsolo}</button>
              <button type="button" class="compact" title=${m.resetHint} ?disabled=${!touched}
                @click=${actions.resetMix}>${icon('reset')} ${m.reset}</button>
            </div>
          </div>
          ${strips({ names: format.channelNames, current: () => listener.mix, change: actions.setMix, meters: state.meters })}
          <p class="soft small">${m.help}</p>`}
    </section>`;
}
