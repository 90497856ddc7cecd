/**
 * Where the sound comes from: cards of the inputs with a row per channel, and the ways to add one.
 * @module
 */

import { RelayError } from '../api.js';
import { html, icon, nothing, ref, repeat } from '../dom.js';
import '../faders.js';
import { announce, ask } from '../shell.js';
import { dialog } from './dialogs.js';
import { decibels } from './format.js';
import { chooseOrder } from './order.js';
import { t } from './texts.js';

const ICONS = /** @type {const} */ ({ device: 'microphone', tab: 'tab', file: 'file', tone: 'tone', node: 'tone' });
const MOST_CHANNELS = 64;
const TONE_DB = -12; // dBFS
const DEVICE_CHANNELS = [1, 2, 4, 6, 8, 16, 32];

/** @typedef {import('./studio.js').Studio} Studio */
/** @typedef {import('../../client/relay-client.js').Input} Input */

/**
 * @param {Studio} studio
 * @param {{ attempt: (what: () => Promise<unknown>) => void, lamps: import('./lamps.js').Lamps, meters: import('../meters.js').Meters }} page
 */
export function inputsPanel(studio, page) {
  const inputs = studio.broadcaster?.inputs ?? [];
  return html`
    <section class="panel inputs" aria-labelledby="inputs-title" ${ref(page.meters.attach)}>
      <header class="panel-head">
        <h2 id="inputs-title">${t.inputs}</h2>
        ${adders(studio, page)}
      </header>
      ${studio.isLive ? html`<p class="soft small">${t.inputsLive}</p>` : nothing}
      ${inputs.length === 0
        ? html`<p class="empty">${t.noInputs}</p>`
        : html`<ul class="input-list">${repeat(inputs, (input) => input, (input) => card(studio, input, page))}</ul>`}
    </section>`;
}

/** @param {Studio} studio @param {any} page */
function adders(studio, page) {
  const device = () => page.attempt(async () => {
    const wish = await chooseDevice();
    if (wish) await studio.add(wish);
  });
  const tone = () => page.attempt(async () => {
    const wish = await chooseTone();
    if (wish) await studio.add(wish);
  });
  const order = () => page.attempt(async () => {
    const wish = await chooseOrder(studio);
    if (wish) studio.reorder(wish);
  });
  const tab = () => page.attempt(() => studio.add({ kind: 'tab', label: t.tab, gain: 1, muted: false }));
  const file = (/** @type {Event} */ event) => {
    const field = /** @type {HTMLInputElement} */ (event.target);
    const chosen = field.files?.[0];
    field.value = '';
    if (chosen) {
      page.attempt(() => studio.add({ kind: 'file', label: chosen.name, file: chosen, gain: 1, muted: false }));
    }
  };
  return html`
    <div class="adders" role="group" aria-label=${t.addInput}>
      <button class="compact" @click=${device} data-add="device">${t.addDevice}</button>
      ${navigator.mediaDevices?.getDisplayMedia === undefined
        ? nothing
        : html`<button class="compact" @click=${tab} data-add="tab">${t.addTab}</button>`}
      <label class="button compact">
        <input type="file" class="unseen" accept="audio/*,video/*" @change=${file} data-add="file" />
        ${t.addFile}
      </label>
      <button class="compact" @click=${tone} data-add="tone">${t.addTone}</button>
    </div>
    <button class="compact" ?disabled=${(studio.broadcaster?.channelNames.length ?? 0) < 2} @click=${order}>${t.order}</button>`;
}

/** Why nothing is heard of an input, if it is not by hand. @param {Input} input */
function troubleOf(input) {
  if (input.ended) return t.inputEnded[input.kind];
  return input.silenced ? t.inputSilenced : null;
}

/** @type {WeakMap<Input, string | null>} the trouble that each had when it was looked at */
const known = new WeakMap();

/** Says to screen readers which inputs became silent by themselves. @param {readonly Input[]} inputs */
export function announceTrouble(inputs) {
  const news = inputs.filter((input) => {
    const before = known.get(input) ?? null;
    known.set(input, troubleOf(input));
    return troubleOf(input) !== null && troubleOf(input) !== before;
  });
  if (news.length) announce(news.map((input) => `${input.name}: ${troubleOf(input)}.`).join(' '));
}

/** @param {Studio} studio @param {Input} input @param {any} page */
function card(studio, input, page) {
  const names = studio.broadcaster?.channelNames ?? [];
  const channels = [...input.channels].sort((a, b) => a - b); // in the order on air
  const trouble = troubleOf(input);
  return html`
    <li class="input-card ${trouble === null ? '' : 'ended'} ${input.muted ? 'is-muted' : ''}">
      <div class="input-head">
        ${icon(ICONS[input.kind])}
        <span class="input-name"><strong>${input.name}</strong>
          <small>${trouble ?? t.kinds[input.kind]}</small></span>
        <button class="compact mute" aria-pressed=${input.muted}
          @click=${() => studio.adjust(input, { muted: !input.muted })}>${t.mute}</button>
        <button class="compact quiet icon-only" aria-label="${t.remove} ${input.name}"
          @click=${() => studio.remove(input)}>${icon('close')}</button>
      </div>
      <div class="gain">
        <span aria-hidden="true">${t.gain}</span>
        <span class="slide"><relay-fader aria-label=${t.gainOf(input.name)} .value=${input.gain}
          @input=${(/** @type {CustomEvent} */ event) => studio.adjust(input, { gain: event.detail.value })}></relay-fader></span>
        <output>${decibels(input.gain)}</output>
      </div>
      <ol class="channels">
        ${channels.map(
          (channel) => html`
            <li class="channel" data-channel=${channel}>
              <span class="channel-number" aria-hidden="true">${channel + 1}</span>
              <input class="channel-name" maxlength="64" .value=${names[channel] ?? ''} placeholder="${t.channel} ${channel + 1}"
                aria-label="${t.nameOfChannel} ${channel + 1}"
                @change=${(/** @type {any} */ event) =>
                  page.attempt(() => studio.rename(channel, event.target.value.trim()))} />
              <span class="meter lying" aria-hidden="true"><i class="cover"></i><i class="peak"></i></span>
              <button class="clip quiet" aria-label=${t.clip(channel + 1, page.lamps.isLit(channel))} title=${t.clipTold}
                aria-pressed=${page.lamps.isLit(channel)} @click=${() => page.lamps.reset(channel)}><i></i></button>
            </li>`,
        )}
      </ol>
    </li>`;
}

/**
 * Lets a device be chosen; the list follows what is plugged in and out.
 * @returns {Promise<import('./studio.js').Kept | undefined>}
 */
async function chooseDevice() {
  const devices = navigator.mediaDevices;
  if (!devices?.getUserMedia) throw new RelayError('insecure_context', t.inputErrors.insecure_context);
  // Names of devices are told only to a page that may record.
  const leave = await devices.getUserMedia({ audio: true });
  for (const track of leave.getTracks()) track.stop();
  /** @type {MediaDeviceInfo[]} */
  let list = [];
  let redraw = () => {};
  const look = async () => {
    list = (await devices.enumerateDevices()).filter((device) => device.kind === 'audioinput');
    redraw();
  };
  await look();
  devices.addEventListener('devicechange', look);
  try {
    return await dialog((/** @type {(answer?: import('./studio.js').Kept) => void} */ close, again) => {
      redraw = again;
      const submit = (/** @type {SubmitEvent} */ event) => {
        event.preventDefault();
        const form = new FormData(/** @type {HTMLFormElement} */ (event.target));
        const deviceId = String(form.get('device'));
        const picked = readChannels(String(form.get('only') ?? ''));
        const channelCount = Math.max(Number(form.get('count')), ...(picked ?? []).map((index) => index + 1));
        close({
          kind: 'device',
          deviceId,
          label: list.find((device) => device.deviceId === deviceId)?.label || t.device,
          channels: picked,
          channelCount,
          processing: form.has('processing'),
          gain: 1,
          muted: false,
        });
      };
      return html`
        <form class="stack" @submit=${submit}>
          <h2>${t.addDevice}</h2>
          <label class="field"><span>${t.device}</span>
            <select name="device" required>
              ${list.map((device, index) => html`<option value=${device.deviceId}>${device.label || `${t.device} ${index + 1}`}</option>`)}
            </select></label>
          <label class="field"><span>${t.channelCount}</span>
            <select name="count">
              ${DEVICE_CHANNELS.map((count) => html`<option value=${count} ?selected=${count === 2}>${count}</option>`)}
            </select></label>
          <label class="field"><span>${t.onlyChannels}</span>
            <input name="only" inputmode="numeric" pattern="\\s*\\d+(\\s*[,\\-]\\s*\\d+)*\\s*" placeholder="1, 3-4" />
            <small>${t.onlyChannelsTold}</small></label>
          <label class="check"><input type="checkbox" name="processing" /> <span>${t.processing}</span></label>
          <div class="actions">
            <button type="button" class="quiet" @click=${() => close()}>${t.cancel}</button>
            <button class="primary" ?disabled=${list.length === 0}>${t.add}</button>
          </div>
        </form>`;
    });
  } finally {
    devices.removeEventListener('devicechange', look);
  }
}

/**
 * Channel numbers as people write them: "1, 3-4" is the first, third and fourth.
 * @param {string} text
 * @returns {number[] | null} indices from 0, in order; null for all
 */
export function readChannels(text) {
  const found = new Set();
  for (const part of text.split(',')) {
    const [first, last = first] = part.split('-').map((each) => Number.parseInt(each, 10));
    for (let number = first; number <= Math.min(last, MOST_CHANNELS); number++) {
      if (number >= 1) found.add(number - 1);
    }
  }
  return found.size ? [...found].sort((a, b) => a - b) : null;
}

/** @returns {Promise<import('./studio.js').Kept | null>} */
function chooseTone() {
  const content = html`<label class="field"><span>${t.frequency}</span>
    <input name="frequency" type="number" min="20" max="20000" step="any" value="440" required /></label>`;
  return ask(t.addTone, content, {
    confirm: t.add,
    read: (form) => {
      const frequency = Number(form.get('frequency'));
      return { kind: 'tone', frequency, label: `${t.tone} ${frequency} Hz`, level: TONE_DB, gain: 1, muted: false };
    },
  });
}
