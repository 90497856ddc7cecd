/**
 * An owner's hand on a listener's mix.
 * @module
 */

import { html, icon, nothing } from '../dom.js';
import { Meters } from '../meters.js';
import { restingMix, strips } from '../strips.js';
import { texts } from '../texts.js';
import { dialog } from './dialogs.js';
import { poll } from './poll.js';
import { t } from './texts.js';

const AGAIN_MS = 2000;
const HANDS_OFF_MS = 1500; // what the listener changes is shown when nothing was changed here for so long

/** @typedef {import('../strips.js').FullMix} Mix */

/** The mix of one listener: as the server has it, and as it is changed here. */
export class RemoteMix {
  /**
   * @param {(method: 'GET' | 'PUT', body?: object) => Promise<{ mix: Mix }>} ask
   * @param {number} channels
   */
  constructor(ask, channels) {
    this._ask = ask;
    this._channels = channels;
    /** @type {Mix | null} every list as long as there are channels */
    this.mix = null;
    /** @type {Partial<Mix> | null} what was changed since the request that is under way */
    this._change = null;
    this._sending = false;
    this._changedAt = -Infinity;
  }

  async load() {
    if (this._sending || performance.now() - this._changedAt < HANDS_OFF_MS) return;
    const { mix } = await this._ask('GET');
    if (this._change === null) this.mix = this._whole(mix);
  }

  reset() {
    return this.change(restingMix(this._channels));
  }

  /** One request at a time: what a dragged fader passes by meanwhile is never sent. @param {Partial<Mix>} change */
  async change(change) {
    if (!this.mix) return;
    this.mix = { ...this.mix, ...change };
    this._change = { ...this._change, ...change };
    this._changedAt = performance.now();
    if (this._sending) return;
    this._sending = true;
    try {
      while (this._change) {
        const body = this._change;
        this._change = null;
        await this._ask('PUT', body);
      }
    } catch (error) {
      this._change = null; // what the server has is shown again
      throw error;
    } finally {
      this._sending = false;
    }
  }

  /** Every list as long as there are channels. @param {Partial<Mix>} mix @returns {Mix} */
  _whole(mix) {
    const whole = restingMix(this._channels);
    for (const name of /** @type {const} */ (['faders', 'pans', 'mutes', 'solos'])) {
      (mix[name] ?? []).slice(0, this._channels).forEach((value, channel) => {
        whole[name][channel] = value;
      });
    }
    return { ...whole, master: mix.master ?? 1 };
  }
}

/**
 * @param {import('./studio.js').Studio} studio
 * @param {{ participantId: string }} listener
 * @param {string} name
 * @param {(error: unknown) => void} failed
 */
export async function mixDialog(studio, { participantId }, name, failed) {
  const { channels = [] } = await studio.ask('GET', '/channels');
  const path = `/mixes/${participantId}`;
  const remote = new RemoteMix((method, body) => studio.ask(method, path, body ? { body } : {}), channels.length);
  await remote.load();
  const names = channels.map((/** @type {any} */ channel) => channel.name || texts.mixer.channel(channel.index + 1));
  // Of the channels, before their faders; they are known where they are sent.
  const meters = new Meters(() => {
    const levels = studio.isLive ? studio.broadcaster?.levels() : null;
    return levels ? { master: { peak: [NaN, NaN] }, channels: levels } : null;
  });
  let redraw = () => {};
  let gone = false;
  const fail = (/** @type {unknown} */ error) => {
    gone = /** @type {any} */ (error).code === 'not_found';
    if (!gone) failed(error);
    redraw();
  };
  const did = (/** @type {Promise<unknown>} */ what) => {
    redraw();
    what.catch(fail);
  };
  const stop = poll(() => remote.load().then(redraw), AGAIN_MS, fail);
  try {
    await dialog((close, again) => {
      redraw = again;
      return html`
        <div class="stack remote-mix">
          <header class="row spread"><h2>${t.mixOf(name)}</h2>
            <button class="compact quiet icon-only" aria-label=${t.close} @click=${() => close()}>${icon('close')}</button></header>
          <p role="status">${gone ? t.mixGone : channels.length ? t.mixTold : t.noChannels}</p>
          ${remote.mix && channels.length && !gone
            ? html`${strips({ names, current: () => remote.mix ?? restingMix(names.length), meters, change: (change) => did(remote.change(change)) })}
                <div class="actions"><button @click=${() => did(remote.reset())}>${texts.mixer.reset}</button></div>`
            : nothing}
        </div>`;
    }, { wide: true });
  } finally {
    stop();
  }
}
