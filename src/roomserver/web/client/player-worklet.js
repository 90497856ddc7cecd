// The audio thread's side of the player.

import { FrameRing } from './frame-ring.js';
import { JitterBuffer } from './jitter.js';
import { StereoMeter } from './meter.js';
import { MAX_CHANNELS } from './wire.js';

const REPORTS_HZ = 25;

/**
 * Ten a second or more go to the page: figures of the jitter buffer as of `frame`, and levels
 * (linear): master peak and RMS, then peak and RMS of each channel of the room.
 * @typedef {{frame: number, figures: import('./jitter.js').Figures, levels: Float32Array}} Report
 */
/** The tables are made by the page: here they would hold up the sound. @typedef {{tables: import('./resampler.js').ResamplerTable[]}} PlayerOptions */
/**
 * @typedef {{type: 'ring', ring: SharedArrayBuffer} | {type: 'frames', port: MessagePort}
 *   | {type: 'mix', mix: import('./mixer.js').FullMix} | {type: 'target', ms: number | null}
 *   | {type: 'end'}} Command
 */

class Player extends AudioWorkletProcessor {
  #jitter;
  #meter = new StereoMeter();
  /** @type {FrameRing | null} */
  #ring = null;
  #nextReport = 0;
  #ended = false;

  /** Made once: the audio thread makes no function for a block. @param {import('./jitter.js').PlayerFrame} frame */
  #take = (frame) => this.#jitter.push(frame, currentFrame);

  /** @param {{processorOptions: PlayerOptions}} options */
  constructor({ processorOptions }) {
    super();
    this.#jitter = new JitterBuffer(sampleRate, processorOptions.tables);
    this.port.onmessage = (event) => this.#obey(event.data);
  }

  /** @param {Float32Array[][]} _inputs @param {Float32Array[][]} outputs */
  process(_inputs, outputs) {
    const [left, right] = outputs[0];
    this.#ring?.drain(this.#take);
    this.#jitter.render(left, right, currentFrame);
    this.#meter.add(left, right);
    if (currentFrame >= this.#nextReport) this.#report();
    return !this.#ended;
  }

  /** @param {Command} command */
  #obey(command) {
    switch (command.type) {
      case 'ring':
        this.#ring = new FrameRing(command.ring);
        break;
      case 'frames':
        command.port.onmessage = (event) => this.#take(event.data);
        break;
      case 'mix':
        this.#jitter.setMix(command.mix);
        break;
      case 'target':
        this.#jitter.setTarget(command.ms);
        break;
      case 'end':
        this.#ended = true;
    }
  }

  #report() {
    this.#nextReport = currentFrame + sampleRate / REPORTS_HZ;
    const levels = new Float32Array(4 + 2 * MAX_CHANNELS);
    this.#meter.take(levels);
    this.#jitter.takeLevels(levels.subarray(4));
    const frame = currentFrame + 128;
    const figures = this.#jitter.figures(frame);
    this.port.postMessage({ frame, figures, levels }, [levels.buffer]);
  }
}

registerProcessor('relay-player', Player);
