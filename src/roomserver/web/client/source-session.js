// A broadcaster's connection, in the worker: makes packets of what the capture worklet hands over.

import { nowUs } from './clock.js';
import { Connection } from './connection.js';
import { plain } from './errors.js';
import { packSourcePacket } from './wire.js';

const FIGURES_MS = 1000;
const MOST_BUFFERED_S = 0.5; // of audio that waits to go out; then packets are left out, whole
const WINDOW_PACKETS = 200; // in which the least delay of a packet says when it was captured
const DRAIN_MARGIN_MS = 2000;
const LATE_MS = 200; // that a block may take from the audio thread to here

/** @typedef {import('./wire.js').Encoding} Encoding */
/** @typedef {import('./capture-worklet.js').Block} Block */
/**
 * @typedef {{channels: number, sampleRate: number, encoding: Encoding, frameMs?: number,
 *   bufferMs?: number, channelNames?: string[]}} Registration
 */

export class SourceSession {
  #tell;
  #connection;
  /** @type {Registration} */
  #fields;
  #layout;
  #port;
  #sequence = 0;
  /** Samples of the timeline beyond the context's own count: it stood still, and time did not. */
  #skipped = 0;
  #heardUs = NaN; // when the block before came
  /** @type {number[]} Moments of arrival less the context's, in microseconds. */
  #delays = [];
  #packets = 0;
  #bytes = 0;
  #dropped = 0;
  #timer;
  /** @type {(() => void) | null} */
  #drained = null;

  /**
   * @param {{server: string, roomId: string, roomToken: string}} access
   * @param {Registration} fields
   * @param {number} layout Of the blocks that these fields describe.
   * @param {MessagePort} port Of the capture worklet; blocks go back to it to be used again.
   * @param {(message: any) => void} tell To the page.
   * @param {() => Promise<string | null>} renew
   */
  constructor(access, fields, layout, port, tell, renew) {
    this.#fields = fields;
    this.#layout = layout;
    this.#tell = tell;
    this.#port = port;
    this.#connection = new Connection('registerSource', access, {
      fields: () => this.#fields,
      renew,
      connecting: (error) => tell({ type: 'connecting', error: error && plain(error) }),
      registered: (message) => tell({ type: 'registered', message }),
      text: (message) => this.#text(message),
      binary: () => {},
      closed: (error) => tell({ type: 'closed', error: plain(error) }),
    });
    port.onmessage = (event) => this.#block(event.data);
    this.#timer = setInterval(() => this.#report(), FIGURES_MS);
  }

  run() {
    return this.#connection.run();
  }

  /** Ends the broadcast: what was sent is played out. @param {number} bufferedMs At the server. */
  async leave(bufferedMs) {
    this.#port.onmessage = null;
    if (this.#connection.send({ type: 'unregisterSource' })) {
      await new Promise((resolve) => {
        this.#drained = () => resolve(undefined);
        setTimeout(resolve, bufferedMs + DRAIN_MARGIN_MS);
      });
    }
    this.close();
  }

  close() {
    clearInterval(this.#timer);
    this.#port.onmessage = null;
    this.#connection.close();
  }

  /** @param {import('./connection.js').Message} message */
  send(message) {
    return this.#connection.send(message);
  }

  /** Of registrations to come. @param {Partial<Registration>} fields */
  remember(fields) {
    Object.assign(this.#fields, fields);
  }

  /** The channels are others: begins another stream. @param {number} layout @param {Partial<Registration>} fields */
  arrange(layout, fields) {
    this.#layout = layout;
    this.remember(fields);
    this.#connection.restart();
  }

  /** @param {import('./connection.js').Message} message */
  #text(message) {
    if (message.type === 'roomSuspended') this.#drained?.();
    this.#tell({ type: 'text', message });
  }

  /** @param {Block} block */
  #block(block) {
    const timeUs = this.#captured(block);
    this.#send(block, timeUs);
    this.#port.postMessage(block.planes, [block.planes.buffer]);
  }

  /** When its first sample was captured, by our clock. @param {Block} block */
  #captured(block) {
    const { sampleRate } = this.#fields;
    // The context stood still (suspended, another device): the timeline goes on with time.
    this.#skipped += Math.round((this.#stopped(block) * sampleRate) / 1000);
    const startUs = ((block.frame + this.#skipped) / sampleRate) * 1e6;
    this.#delays.push(nowUs() - startUs - (block.sampleCount / sampleRate) * 1e6);
    if (this.#delays.length > WINDOW_PACKETS) this.#delays.shift();
    return Math.round(startUs + Math.min(...this.#delays));
  }

  /**
   * For how long the context stood still before a block. The audio thread has the clock on the wall
   * alone, and somebody may have set that: while the context stood, time passed here as well.
   * @param {Block} block
   */
  #stopped({ stoppedMs }) {
    const now = nowUs();
    const passedMs = (now - this.#heardUs) / 1000;
    this.#heardUs = now;
    return stoppedMs > passedMs + LATE_MS ? 0 : stoppedMs;
  }

  /** @param {Block} block @param {number} timeUs */
  #send(block, timeUs) {
    const { channels, encoding, sampleRate } = this.#fields;
    if (!this.#connection.isRegistered || block.layout !== this.#layout) return;
    const bytesPerSecond = channels * sampleRate * (encoding === 'pcm_f32le' ? 4 : 2);
    if (this.#connection.bufferedBytes > MOST_BUFFERED_S * bytesPerSecond) {
      this.#dropped++;
      return;
    }
    const packet = packSourcePacket(block.planes, {
      encoding,
      channelCount: channels,
      sampleCount: block.sampleCount,
      sequence: this.#sequence++,
      timestamp: block.frame + this.#skipped,
      timeUs: Math.max(0, timeUs + Math.round(this.#connection.clock.offsetUs)),
    });
    this.#connection.sendBinary(packet);
    this.#packets++;
    this.#bytes += packet.byteLength;
  }

  #report() {
    this.#tell({
      type: 'uplink',
      packetsSent: this.#packets,
      bytesSent: this.#bytes,
      droppedPackets: this.#dropped,
      bufferedBytes: this.#connection.bufferedBytes,
      rttMs: this.#connection.clock.roundTripUs / 1000,
    });
  }
}
