// The audio thread's side of a broadcast: blocks of planar samples, numbered by the context's frames.

const LEVELS_HZ = 25;
const BLOCK_S = 0.01;
const STOPPED_MS = 250; // that the clock on the wall is ahead of the context: it stood still, or was set
const PER_INPUT = 32;
const CLIPPED = 1;

/**
 * Planes one after another; `frame` is the context's number of the first sample, `layout` that of the
 * arrangement of channels that it was captured in. `stoppedMs`: how long the context stood still
 * before it.
 * @typedef {{planes: Float32Array<ArrayBuffer>, frame: number, channelCount: number, sampleCount: number,
 *   layout: number, stoppedMs: number}} Block
 */
/**
 * Peak, RMS (linear) and whether it clipped (0, 1), channel by channel.
 * @typedef {{levels: Float32Array, layout: number}} CaptureReport
 */
/**
 * `places`: which of the inputs' channels, counted through, is which channel of the room.
 * @typedef {{type: 'blocks', port: MessagePort} | {type: 'silent'}
 *   | {type: 'channels', places: number[], layout: number} | {type: 'end'}} CaptureCommand
 */

class Capture extends AudioWorkletProcessor {
  #channels = 0;
  /** @type {number[]} */
  #places = [];
  #layout = 0;
  #samples = Math.round(sampleRate * BLOCK_S);
  /** @type {MessagePort | null} */
  #blocks = null;
  /** @type {Float32Array<ArrayBuffer>[]} Came back from the worker. */
  #spare = [];
  /** @type {Float32Array<ArrayBuffer>} */
  #planes = new Float32Array(0);
  #filled = 0;
  #levels = new Float32Array(0);
  #squares = new Float64Array(0);
  #measured = 0;
  #nextLevels = 0;
  #wallMs = NaN; // clock on the wall less the context's, at the last block
  #ended = false;

  constructor() {
    super();
    this.port.onmessage = (event) => this.#obey(event.data);
  }

  /** @param {Float32Array[][]} inputs */
  process(inputs) {
    const quantum = 128;
    for (let done = 0; done < quantum && this.#channels > 0; ) {
      const count = Math.min(quantum - done, this.#samples - this.#filled);
      for (let channel = 0; channel < this.#channels; channel++) {
        // An input that nothing is connected to has no channels: it is silent.
        const place = this.#places[channel];
        const from = inputs[Math.floor(place / PER_INPUT)]?.[place % PER_INPUT];
        this.#take(channel, from, done, count);
      }
      this.#measured += count;
      this.#filled += count;
      done += count;
      if (this.#filled === this.#samples) this.#hand(currentFrame + done - this.#samples);
    }
    if (currentFrame >= this.#nextLevels) this.#report();
    return !this.#ended;
  }

  /** @param {CaptureCommand} command */
  #obey(command) {
    switch (command.type) {
      case 'blocks':
        this.#blocks = command.port;
        this.#blocks.onmessage = (event) => this.#spare.push(event.data);
        break;
      case 'silent':
        this.#blocks = null;
        break;
      case 'channels':
        this.#places = command.places;
        this.#layout = command.layout;
        this.#channels = this.#places.length;
        this.#spare = [];
        this.#planes = new Float32Array(this.#channels * this.#samples);
        this.#filled = this.#measured = 0;
        this.#levels = new Float32Array(3 * this.#channels);
        this.#squares = new Float64Array(this.#channels);
        break;
      case 'end':
        this.#ended = true;
    }
  }

  /** @param {number} channel @param {Float32Array | undefined} from @param {number} first @param {number} count */
  #take(channel, from, first, count) {
    const at = channel * this.#samples + this.#filled;
    if (from === undefined) {
      this.#planes.fill(0, at, at + count);
      return;
    }
    let peak = this.#levels[3 * channel];
    let squares = 0;
    for (let i = 0; i < count; i++) {
      const sample = from[first + i];
      this.#planes[at + i] = sample;
      squares += sample * sample;
      if (sample > peak) peak = sample;
      else if (-sample > peak) peak = -sample;
    }
    this.#levels[3 * channel] = peak;
    this.#squares[channel] += squares;
  }

  /** @param {number} frame */
  #hand(frame) {
    this.#filled = 0;
    const wallMs = Date.now() - (frame / sampleRate) * 1000;
    const ahead = wallMs - this.#wallMs;
    this.#wallMs = wallMs;
    if (this.#blocks === null) return;
    const block = {
      planes: this.#planes,
      frame,
      channelCount: this.#channels,
      sampleCount: this.#samples,
      layout: this.#layout,
      stoppedMs: ahead > STOPPED_MS ? ahead : 0,
    };
    this.#blocks.postMessage(block, [this.#planes.buffer]);
    const size = this.#channels * this.#samples;
    let next = this.#spare.pop();
    while (next !== undefined && next.length !== size) next = this.#spare.pop();
    this.#planes = next ?? new Float32Array(size);
  }

  #report() {
    this.#nextLevels = currentFrame + sampleRate / LEVELS_HZ;
    const levels = this.#levels.slice();
    for (let channel = 0; channel < this.#channels; channel++) {
      levels[3 * channel + 1] = Math.sqrt(this.#squares[channel] / Math.max(1, this.#measured));
      levels[3 * channel + 2] = levels[3 * channel] >= CLIPPED ? 1 : 0;
      this.#levels[3 * channel] = this.#squares[channel] = 0;
    }
    this.#measured = 0;
    this.port.postMessage({ levels, layout: this.#layout }, [levels.buffer]);
  }
}

registerProcessor('relay-capture', Capture);

/** Tells once how many channels its input has: the most of a tenth of a second. */
class Width extends AudioWorkletProcessor {
  #most = 0;
  #until = Infinity;
  #told = false;

  /** @param {Float32Array[][]} inputs */
  process([input]) {
    if (input.length > 0) this.#until = Math.min(this.#until, currentFrame + sampleRate / 10);
    this.#most = Math.max(this.#most, input.length);
    if (currentFrame >= this.#until && !this.#told) {
      this.#told = true;
      this.port.postMessage(this.#most);
    }
    return !this.#told; // browsers may go on all the same while something is connected
  }
}

registerProcessor('relay-width', Width);

export {}; // a module, whose types others use
