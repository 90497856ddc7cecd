// The stereo mix, number for number as the server makes it (docs/protocol.md, "Numbers").

import { MAX_CHANNELS } from './wire.js';

/**
 * A whole mix; lists may be shorter than there are channels: fader 1, pan 0, no mute, no solo.
 * @typedef {{faders: number[], pans: number[], mutes: boolean[], solos: boolean[],
 *   master: number}} FullMix
 */
/** @typedef {Partial<FullMix>} Mix */

/** @returns {FullMix} */
export function defaultMix() {
  return { faders: [], pans: [], mutes: [], solos: [], master: 1 };
}

/**
 * Gains of one channel.
 *
 * @param {number} fader Linear, 0 … 4.
 * @param {number} pan -1 (left) … 1 (right).
 * @param {number} master Linear, 0 … 4.
 * @returns {[left: number, right: number]}
 */
export function channelGains(fader, pan, master) {
  const angle = ((pan + 1) * Math.PI) / 4;
  return [Math.cos(angle) * fader * master, Math.sin(angle) * fader * master];
}

/** Whether bit `channel` of a mask of two 32-bit words is set. @param {number} lo @param {number} hi @param {number} channel */
function isIn(lo, hi, channel) {
  return ((channel < 32 ? lo >>> channel : hi >>> (channel - 32)) & 1) === 1;
}

/**
 * Mixes the channels of frames to left and right. A change of gain ramps linearly over one frame:
 * sample 0 still has the old gain, sample 0 of the next frame is the first with the new one.
 *
 * Nothing is allocated for a frame.
 */
export class Mixer {
  #mix = defaultMix();
  #stale = true;
  #fresh = true; // no gain has been heard yet that a ramp could start from
  #maskLo = 0;
  #maskHi = 0;
  /** Room's channel of each channel in the payload. */
  #channels = new Uint8Array(MAX_CHANNELS);
  #count = 0;
  /** Gains by payload channel, left and right by turns: now, and at the end of the next frame. */
  #gains = new Float64Array(2 * MAX_CHANNELS);
  #targets = new Float64Array(2 * MAX_CHANNELS);
  /** By room channel, since they were last taken. */
  #peaks = new Float64Array(MAX_CHANNELS);
  #squares = new Float64Array(MAX_CHANNELS);
  #measured = 0;

  /** Another mix from the next frame on. @param {FullMix} mix */
  setMix(mix) {
    this.#mix = mix;
    this.#stale = true;
  }

  /**
   * Mixes a part of a frame. What of it is left out is not ramped over either: gains are of the
   * samples' places in the frame.
   *
   * @param {{samples: Int16Array | Float32Array, channelCount: number, sampleCount: number,
   *   maskLo: number, maskHi: number}} frame Interleaved; the mask says which channels of the room
   *   these are.
   * @param {number} first First sample to mix; the frame's end is the end.
   * @param {Float32Array} left @param {Float32Array} right @param {number} at Where to.
   */
  mix(frame, first, left, right, at) {
    this.#follow(frame);
    const { samples, channelCount, sampleCount } = frame;
    const scale = samples instanceof Int16Array ? 1 / 32768 : 1;
    const gains = this.#gains;
    const targets = this.#targets;
    let ramping = false;
    for (let i = 0; i < 2 * channelCount && !ramping; i++) ramping = gains[i] !== targets[i];
    for (let i = first, k = first * channelCount; i < sampleCount; i++) {
      let l = 0;
      let r = 0;
      const t = ramping ? i / sampleCount : 0;
      for (let c = 0; c < channelCount; c++, k++) {
        const sample = samples[k] * scale;
        const g = gains[2 * c];
        const h = gains[2 * c + 1];
        l += sample * (g + (targets[2 * c] - g) * t);
        r += sample * (h + (targets[2 * c + 1] - h) * t);
      }
      left[at + i - first] = l;
      right[at + i - first] = r;
    }
    gains.set(targets);
    this.#measure(samples, channelCount, first, sampleCount, scale);
  }

  /** Gains of the frames that the server mixes go on from the mix in force, without a ramp. */
  skip() {
    this.#fresh = true;
  }

  /**
   * Writes peak and RMS (linear) of each channel of the room since the last call: pairs, NaN for
   * those that were not heard.
   *
   * @param {Float32Array} into 2 × 64.
   */
  takeLevels(into) {
    into.fill(NaN);
    if (this.#measured > 0) {
      for (let c = 0; c < this.#count; c++) {
        const channel = this.#channels[c];
        into[2 * channel] = this.#peaks[c];
        into[2 * channel + 1] = Math.sqrt(this.#squares[c] / this.#measured);
      }
    }
    this.#forget();
  }

  #forget() {
    this.#peaks.fill(0);
    this.#squares.fill(0);
    this.#measured = 0;
  }

  /**
   * @param {Int16Array | Float32Array} samples @param {number} channelCount
   * @param {number} first @param {number} end @param {number} scale
   */
  #measure(samples, channelCount, first, end, scale) {
    for (let c = 0; c < channelCount; c++) {
      let peak = this.#peaks[c];
      let squares = 0;
      for (let k = first * channelCount + c; k < end * channelCount; k += channelCount) {
        const sample = samples[k] * scale;
        squares += sample * sample;
        if (sample > peak) peak = sample;
        else if (-sample > peak) peak = -sample;
      }
      this.#peaks[c] = peak;
      this.#squares[c] += squares;
    }
    this.#measured += end - first;
  }

  /** Brings the gains aimed at up to date. @param {{channelCount: number, maskLo: number, maskHi: number}} frame */
  #follow(frame) {
    const { channelCount, maskLo, maskHi } = frame;
    const others =
      maskLo !== this.#maskLo || maskHi !== this.#maskHi || channelCount !== this.#count;
    if (others) {
      this.#maskLo = maskLo;
      this.#maskHi = maskHi;
      this.#count = 0;
      for (let channel = 0; channel < MAX_CHANNELS && this.#count < channelCount; channel++) {
        if (isIn(maskLo, maskHi, channel)) this.#channels[this.#count++] = channel;
      }
      this.#forget();
    }
    if (others || this.#stale) this.#aim();
    if (others || this.#fresh) this.#gains.set(this.#targets);
    this.#stale = this.#fresh = false;
  }

  #aim() {
    const { faders, pans, mutes, solos, master } = this.#mix;
    let soloed = false;
    for (let c = 0; c < this.#count; c++) soloed ||= solos[this.#channels[c]] === true;
    this.#targets.fill(0);
    for (let c = 0; c < this.#count; c++) {
      const channel = this.#channels[c];
      if (mutes[channel] || (soloed && !solos[channel])) continue;
      const [left, right] = channelGains(faders[channel] ?? 1, pans[channel] ?? 0, master);
      this.#targets[2 * c] = left;
      this.#targets[2 * c + 1] = right;
    }
  }
}
