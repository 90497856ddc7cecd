// A listener's connection, in the worker: hands frames to the player, keeps count of them.

import { nowUs } from './clock.js';
import { Connection } from './connection.js';
import { plain } from './errors.js';
import { FrameRing } from './frame-ring.js';
import { parseServerMessage } from './wire.js';

const FIGURES_MS = 1000;
const FIRST_FIGURES_MS = 300; // after registering: the clock is known by then
const MAX_LAG_MS = 500; // what the server tolerates before it leaves frames out itself
const TWO_32 = 2 ** 32;

/**
 * Where frames go: into shared memory, through a port to the worklet, or to the page.
 * @typedef {{ring: SharedArrayBuffer} | {port: MessagePort} | {page: true}} Sink
 */
/**
 * @typedef {{type: 'arrivals', offsetUs: number, clockKnown: boolean, roundTripMs: number,
 *   jitterMs: number, framesReceived: number, framesMissing: number, framesConcealed: number,
 *   framesStale: number, bytesReceived: number, reconnects: number}} Arrivals
 */

/** The channels of a payload as two words of bits. @param {number[] | null} channels @param {number} count */
function maskOf(channels, count) {
  let maskLo = 0;
  let maskHi = 0;
  for (let i = 0; i < count; i++) {
    const channel = channels === null ? i : channels[i];
    if (channel < 32) maskLo |= 1 << channel;
    else maskHi |= 1 << (channel - 32);
  }
  return { maskLo, maskHi };
}

export class ListenerSession {
  #tell;
  #connection;
  #sink;
  #ring;
  #fields;
  #held = false;
  #bufferMs = 0;
  /** What is in force for the frames that come: told before the first of them. */
  #mixed = false;
  /** @type {number[] | null} */
  #channels = null;
  #stream = -1;
  #sampleRate = 0;
  #nextTimestamp = 0;
  #nextSequence = 0;
  #received = 0;
  #missing = 0;
  #concealed = 0;
  #stale = 0;
  #jitterUs = 0;
  #lastDelayUs = NaN;
  #timer;

  /**
   * @param {{server: string, roomId: string, roomToken: string}} access
   * @param {Record<string, unknown>} fields Of the registration.
   * @param {Sink} sink
   * @param {(message: any, transfer?: Transferable[]) => void} tell To the page.
   * @param {() => Promise<string | null>} renew
   */
  constructor(access, fields, sink, tell, renew) {
    this.#fields = fields;
    this.#sink = sink;
    this.#ring = 'ring' in sink ? new FrameRing(sink.ring) : null;
    this.#tell = tell;
    this.#connection = new Connection('registerListener', access, {
      fields: () => this.#registration(),
      renew,
      connecting: (error) => tell({ type: 'connecting', error: error && plain(error) }),
      registered: (message) => this.#registered(message),
      text: (message) => this.#text(message),
      binary: (message) => this.#binary(message),
      closed: (error) => tell({ type: 'closed', error: plain(error) }),
    });
    this.#timer = setInterval(() => this.#report(), FIGURES_MS);
  }

  run() {
    return this.#connection.run();
  }

  close() {
    clearInterval(this.#timer);
    this.#connection.close();
  }

  /** @param {import('./connection.js').Message} message */
  send(message) {
    return this.#connection.send(message);
  }

  /** Of registrations to come. @param {Record<string, unknown>} fields */
  remember(fields) {
    Object.assign(this.#fields, fields);
  }

  /** Keeps frames back while nothing plays them. @param {boolean} held */
  hold(held) {
    this.#held = held;
  }

  /** What the player means to hold back, for the age of frames. @param {number} ms */
  buffer(ms) {
    this.#bufferMs = ms;
  }

  #registration() {
    if (this.#stream < 0) return this.#fields;
    return { ...this.#fields, from: this.#nextTimestamp };
  }

  /** @param {import('./connection.js').Message} message */
  #registered(message) {
    if (message.stream !== undefined) this.#begin(message);
    this.#subscribed(message);
    this.#lastDelayUs = NaN;
    this.#tell({ type: 'registered', message });
    setTimeout(() => this.#report(), FIRST_FIGURES_MS);
  }

  /** @param {import('./connection.js').Message} message */
  #text(message) {
    if (message.type === 'streamStarted') this.#begin(message);
    else if (message.type === 'subscribed') this.#subscribed(message);
    this.#tell({ type: 'text', message });
  }

  /** @param {import('./connection.js').Message} message */
  #begin(message) {
    this.#sampleRate = message.sampleRate;
    if (message.stream === this.#stream) return; // told again to whoever registers anew
    this.#stream = message.stream;
    this.#nextTimestamp = message.timestamp ?? 0;
    this.#nextSequence = -1;
  }

  /** @param {import('./connection.js').Message} message */
  #subscribed(message) {
    this.#mixed = message.mode === 'mix';
    this.#channels = message.channels ?? null;
  }

  /** @param {ArrayBuffer} message */
  #binary(message) {
    const frame = parse(message);
    if (frame === null) return;
    if (frame.kind === 'levels') {
      this.#tell({ type: 'levels', values: frame.values.slice() });
      return;
    }
    if (frame.stream !== this.#stream) return;
    this.#count(frame);
    if (this.#held || this.#isStale(frame)) return;
    if (this.#mixed && frame.channelCount !== 2) return;
    const layout = {
      sampleRate: this.#sampleRate,
      mixed: this.#mixed,
      ...maskOf(this.#channels, frame.channelCount),
    };
    if (this.#ring !== null) {
      if (!this.#ring.write(message, layout)) this.#stale++;
      return;
    }
    const whole = { ...frame, ...layout };
    if ('port' in this.#sink) this.#sink.port.postMessage(whole, [message]);
    else this.#tell({ type: 'frame', frame: whole }, [message]);
  }

  /** @param {import('./wire.js').Frame} frame */
  #count(frame) {
    this.#received++;
    if (frame.concealed) this.#concealed++;
    if (this.#nextSequence >= 0) {
      const missing = (frame.sequence - this.#nextSequence + TWO_32) % TWO_32;
      if (missing < TWO_32 / 2) this.#missing += missing; // else it was sent again
    }
    const end = frame.timestamp + frame.sampleCount;
    if (this.#nextSequence < 0 || end > this.#nextTimestamp) {
      this.#nextTimestamp = end;
      this.#nextSequence = (frame.sequence + 1) % TWO_32;
    }
    const delayUs = nowUs() - frame.timeUs;
    if (!Number.isNaN(this.#lastDelayUs)) {
      this.#jitterUs += (Math.abs(delayUs - this.#lastDelayUs) - this.#jitterUs) / 16; // RFC 3550
    }
    this.#lastDelayUs = delayUs;
  }

  /** Whether it is older than a player may play. @param {import('./wire.js').Frame} frame */
  #isStale(frame) {
    const { clock } = this.#connection;
    if (!clock.known) return false;
    const ageMs = (nowUs() + clock.offsetUs - frame.timeUs) / 1000;
    // What the way itself takes is no lag; of a way that is longer in one direction, all of it.
    const stale = ageMs > MAX_LAG_MS + this.#bufferMs + clock.roundTripUs / 1000;
    if (stale) this.#stale++;
    return stale;
  }

  #report() {
    const { clock, bytesReceived, reconnects } = this.#connection;
    /** @type {Arrivals} */
    const arrivals = {
      type: 'arrivals',
      offsetUs: clock.offsetUs,
      clockKnown: clock.known,
      roundTripMs: clock.roundTripUs / 1000,
      jitterMs: this.#jitterUs / 1000,
      framesReceived: this.#received,
      framesMissing: this.#missing,
      framesConcealed: this.#concealed,
      framesStale: this.#stale,
      bytesReceived,
      reconnects,
    };
    this.#tell(arrivals);
  }
}

/** Null for what is not of the protocol: everything from outside is hostile. @param {ArrayBuffer} message */
function parse(message) {
  try {
    return parseServerMessage(message);
  } catch {
    return null;
  }
}
