// What plays: an AudioWorklet, or without one buffers on the context's clock.

import { FrameRing } from './frame-ring.js';
import { JitterBuffer } from './jitter.js';
import { StereoMeter } from './meter.js';
import { resamplerTables } from './resampler.js';
import { MAX_CHANNELS } from './wire.js';

const RING_BYTES = 2 ** 23; // more than a second of 64 channels
const BLOCK = 1024; // frames of a buffer
const AHEAD_S = 0.15; // that are scheduled: a page is busy for as long as that now and then
const PUMP_MS = 20;
const REPORT_MS = 40;

/** @typedef {import('./player-worklet.js').Report} Report */
/** @typedef {import('./jitter.js').PlayerFrame} PlayerFrame */
/**
 * What both players are: `sink` is where the worker puts frames, `take` is for those that it hands
 * to the page, `ahead` how many seconds of sound are handed to the context before it plays them.
 * @typedef {{
 *   readonly output: AudioNode,
 *   readonly ahead: number,
 *   readonly sink: import('./listener-session.js').Sink,
 *   readonly transfer: Transferable[],
 *   setMix(mix: import('./mixer.js').FullMix): void,
 *   setTarget(ms: number | null): void,
 *   take(frame: PlayerFrame): void,
 *   end(): void,
 * }} Player
 */

/**
 * Plays on the audio thread; frames get there through shared memory where the page is isolated, else
 * through a port from the worker, in neither case over the page's thread.
 *
 * @implements {Player}
 */
export class WorkletPlayer {
  /** @type {import('./listener-session.js').Sink} */
  sink;
  /** @type {Transferable[]} */
  transfer = [];
  ahead = 0;

  /** @param {AudioWorkletNode} node @param {(report: Report) => void} report @param {() => void} failed */
  constructor(node, report, failed) {
    this.output = node;
    node.onprocessorerror = failed;
    node.port.onmessage = (event) => report(event.data);
    if (globalThis.crossOriginIsolated) {
      const ring = FrameRing.allocate(RING_BYTES);
      this.#tell({ type: 'ring', ring });
      this.sink = { ring };
    } else {
      const { port1, port2 } = new MessageChannel();
      this.#tell({ type: 'frames', port: port1 }, [port1]);
      this.sink = { port: port2 };
      this.transfer = [port2];
    }
  }

  /** @param {AudioContext} context @param {(report: Report) => void} report @param {() => void} failed */
  static async create(context, report, failed) {
    await context.audioWorklet.addModule(new URL('./player-worklet.js', import.meta.url));
    const node = new AudioWorkletNode(context, 'relay-player', {
      numberOfInputs: 0,
      outputChannelCount: [2],
      /** @type {import('./player-worklet.js').PlayerOptions} */
      processorOptions: { tables: resamplerTables(context.sampleRate) },
    });
    return new WorkletPlayer(node, report, failed);
  }

  /** @param {import('./mixer.js').FullMix} mix */
  setMix(mix) {
    this.#tell({ type: 'mix', mix });
  }

  /** @param {number | null} ms */
  setTarget(ms) {
    this.#tell({ type: 'target', ms });
  }

  /** @param {PlayerFrame} _frame */
  take(_frame) {
    throw new Error('frames do not come this way');
  }

  end() {
    this.#tell({ type: 'end' });
    this.output.disconnect();
  }

  /** @param {import('./player-worklet.js').Command} command @param {Transferable[]} [transfer] */
  #tell(command, transfer = []) {
    this.output.port.postMessage(command, transfer);
  }
}

/**
 * Plays without a worklet: the same jitter buffer renders blocks on the page's thread, a little ahead
 * of the context's clock, and each is scheduled where the one before it ends.
 *
 * @implements {Player}
 */
export class BufferPlayer {
  /** @type {import('./listener-session.js').Sink} */
  sink = { page: true };
  /** @type {Transferable[]} */
  transfer = [];
  ahead = AHEAD_S;
  #context;
  #jitter;
  #meter = new StereoMeter();
  #report;
  #next = 0; // frame of the context at which the next block begins
  #nextReport = 0;
  #timer;

  /** @param {AudioContext} context @param {(report: Report) => void} report */
  constructor(context, report) {
    this.#context = context;
    const tables = resamplerTables(context.sampleRate);
    this.#jitter = new JitterBuffer(context.sampleRate, tables, BLOCK);
    this.#report = report;
    this.output = context.createGain();
    this.#timer = setInterval(() => this.#pump(), PUMP_MS);
  }

  /** @param {import('./mixer.js').FullMix} mix */
  setMix(mix) {
    this.#jitter.setMix(mix);
  }

  /** @param {number | null} ms */
  setTarget(ms) {
    this.#jitter.setTarget(ms);
  }

  /** @param {PlayerFrame} frame */
  take(frame) {
    this.#jitter.push(frame, this.#next);
    this.#pump(); // timers are slow in a page that is not seen
  }

  end() {
    clearInterval(this.#timer);
    this.output.disconnect();
  }

  #pump() {
    const context = this.#context;
    if (context.state !== 'running') return;
    const now = Math.ceil(context.currentTime * context.sampleRate);
    if (this.#next < now) this.#next = now + BLOCK; // the page was busy for longer
    while (this.#next < now + AHEAD_S * context.sampleRate) {
      const buffer = context.createBuffer(2, BLOCK, context.sampleRate);
      const left = buffer.getChannelData(0);
      const right = buffer.getChannelData(1);
      this.#jitter.render(left, right, this.#next);
      this.#meter.add(left, right);
      const source = new AudioBufferSourceNode(context, { buffer });
      source.connect(this.output);
      source.start(this.#next / context.sampleRate);
      this.#next += BLOCK;
    }
    if (performance.now() >= this.#nextReport) {
      this.#nextReport = performance.now() + REPORT_MS;
      const levels = new Float32Array(4 + 2 * MAX_CHANNELS);
      this.#meter.take(levels);
      this.#jitter.takeLevels(levels.subarray(4));
      this.#report({ frame: this.#next, figures: this.#jitter.figures(this.#next), levels });
    }
  }
}
