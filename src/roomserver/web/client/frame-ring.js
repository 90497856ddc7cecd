// A ring in shared memory: frames from the worker that receives them to the audio thread.

import { parseServerMessage } from './wire.js';

const CONTROL_BYTES = 64;
const RECORD_WORDS = 8;
const RECORD_BYTES = 4 * RECORD_WORDS;
const WRAP = -1; // in place of a record's length: the next one stands at the beginning
const WRITTEN = 0; // indices of the counters of bytes, modulo 2^32
const READ = 1;

/**
 * One writer, one reader. A record is the length of all, the length of the message, the rate, what
 * the payload is (mixed, mask) and then the message as it came.
 *
 * @typedef {{sampleRate: number, mixed: boolean, maskLo: number, maskHi: number}} Layout
 */
export class FrameRing {
  #control;
  #words;
  #bytes;

  /** @param {SharedArrayBuffer} shared Of `FrameRing.allocate`. */
  constructor(shared) {
    this.shared = shared;
    this.#control = new Int32Array(shared, 0, CONTROL_BYTES / 4);
    this.#words = new Int32Array(shared, CONTROL_BYTES);
    this.#bytes = new Uint8Array(shared, CONTROL_BYTES);
  }

  /** @param {number} bytes A power of two, at most 2^30. */
  static allocate(bytes) {
    return new SharedArrayBuffer(CONTROL_BYTES + bytes);
  }

  /**
   * Writer: adds a frame; false when it has no room, which is when nobody reads.
   *
   * @param {ArrayBuffer} message @param {Layout} layout
   */
  write(message, layout) {
    const size = this.#bytes.length;
    const length = (RECORD_BYTES + message.byteLength + 7) & ~7;
    let written = Atomics.load(this.#control, WRITTEN) >>> 0;
    const read = Atomics.load(this.#control, READ) >>> 0;
    let at = written & (size - 1);
    const skipped = at + length > size ? size - at : 0;
    if (((written - read) >>> 0) + skipped + length > size) return false;
    if (skipped > 0) {
      this.#words[at >> 2] = WRAP;
      written += skipped;
      at = 0;
    }
    const word = at >> 2;
    this.#words[word] = length;
    this.#words[word + 1] = message.byteLength;
    this.#words[word + 2] = layout.sampleRate;
    this.#words[word + 3] = layout.mixed ? 1 : 0;
    this.#words[word + 4] = layout.maskLo;
    this.#words[word + 5] = layout.maskHi;
    this.#bytes.set(new Uint8Array(message), at + RECORD_BYTES);
    Atomics.store(this.#control, WRITTEN, written + length);
    return true;
  }

  /**
   * Reader: hands every frame there is to `take`, whose samples are of the ring until it returns.
   *
   * @param {(frame: import('./jitter.js').PlayerFrame) => void} take
   */
  drain(take) {
    const size = this.#bytes.length;
    const written = Atomics.load(this.#control, WRITTEN) >>> 0;
    let read = Atomics.load(this.#control, READ) >>> 0;
    while (read !== written) {
      const at = read & (size - 1);
      const word = at >> 2;
      const length = this.#words[word];
      if (length === WRAP) {
        read = (read + size - at) >>> 0;
        continue;
      }
      const start = CONTROL_BYTES + at + RECORD_BYTES;
      const frame = parseServerMessage(this.shared, start, this.#words[word + 1]);
      if (frame.kind === 'frame') {
        take({
          ...frame,
          sampleRate: this.#words[word + 2],
          mixed: this.#words[word + 3] === 1,
          maskLo: this.#words[word + 4],
          maskHi: this.#words[word + 5],
        });
      }
      read = (read + length) >>> 0;
      Atomics.store(this.#control, READ, read);
    }
    Atomics.store(this.#control, READ, read);
  }
}
