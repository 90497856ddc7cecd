// A broadcaster: inputs, one capture worklet, and the connection that sends what it hands over.

import { RelayError } from './errors.js';
import { Input, channelCountOf, openDevice, openTab, playFile, stopTracks } from './inputs.js';
import { serverUrl } from './join.js';
import { toDecibels } from './meter.js';
import { Session } from './session.js';
import { MAX_CHANNELS, SAMPLE_RATES } from './wire.js';

const PER_INPUT = 32; // most inputs of a ChannelMergerNode
const USUAL_RATE = 48000;

/** @typedef {import('./connection.js').Message} Message */
/** @typedef {'idle' | 'connecting' | 'live' | 'reconnecting' | 'suspended' | 'closed'} BroadcasterState */
/**
 * @typedef {{fillMs: number, targetMs: number, jitterMs: number, driftPpm: number,
 *   captureOffsetUs: number | null, listenerCount: number, received: number[], late: number[],
 *   duplicate: number[], lost: number[], concealed: number[]}} Status
 */
/**
 * What an input is: `taken` are the channels of its source, all unless told; see `Input`.
 * @typedef {{kind: import('./inputs.js').InputKind, name: string, deviceId?: string,
 *   taken?: number[], reopen?: () => Promise<MediaStream>, silenced?: boolean}} What
 */
/** A channel of the room: which of an input's channels it is. @typedef {{input: Input, index: number, name: string}} Channel */
/**
 * @typedef {{server?: string | URL, roomId: string, roomToken: string,
 *   renewToken?: () => Promise<{roomToken: string}>, frameMs?: number, bufferMs?: number,
 *   encoding?: import('./wire.js').Encoding, audioContext?: AudioContext}} BroadcasterOptions
 */

/** A context at a rate that rooms may have. */
function makeContext() {
  const context = new AudioContext({ latencyHint: 'interactive' });
  if (SAMPLE_RATES.includes(context.sampleRate)) return context;
  void context.close();
  return new AudioContext({ latencyHint: 'interactive', sampleRate: USUAL_RATE });
}

/**
 * Broadcasts into a room; see relay-client.d.ts for what each member means.
 */
export class Broadcaster extends EventTarget {
  #options;
  #state = /** @type {BroadcasterState} */ ('idle');
  /** @type {Input[]} */
  #inputs = [];
  /** @type {Channel[]} In the order on air. */
  #channels = [];
  /**
   * Channels of the mergers, counted through, to which nothing is connected; those that were longest
   * ago are taken first. What is connected stays where it is, however the channels are arranged.
   */
  #freePlaces = Array.from({ length: MAX_CHANNELS }, (_, place) => place);
  /** Number of the arrangement of channels: what was captured of another one is not sent. */
  #layout = 0;
  /** @type {Session | null} */
  #session = null;
  /** @type {ReturnType<typeof deferred> | null} The start that is under way. */
  #starting = null;
  /** @type {Status | null} */
  #status = null;
  #statistics = { packetsSent: 0, bytesSent: 0, bufferedBytes: 0, rttMs: NaN, droppedPackets: 0 };
  #levels = {
    peak: new Float32Array(MAX_CHANNELS).fill(NaN),
    rms: new Float32Array(MAX_CHANNELS).fill(NaN),
    clipped: new Uint8Array(MAX_CHANNELS),
  };
  #mergers;
  /** @type {Promise<AudioWorkletNode>} */
  #capture;
  /** One after another, for browsers tell of one plug several times. */
  #reopened = Promise.resolve();
  #onDevices = () => {
    this.#reopened = this.#reopened.then(() => this.#reopenDevices()).catch(() => {}); // the next tells again
  };
  #onAudio = () => this.#emit('audio', { running: this.audioContext.state === 'running' });
  /** Phones silence pages that are not seen, and leave it at that. */
  #onVisible = () => void (document.hidden || this.audioContext.resume());

  /** @param {BroadcasterOptions} options */
  constructor(options) {
    super();
    if (!('audioWorklet' in AudioContext.prototype)) {
      throw new RelayError('insecure_context', 'broadcasting needs a page over https');
    }
    this.#options = { ...options }; // the token is renewed
    this.audioContext = options.audioContext ?? makeContext();
    if (!SAMPLE_RATES.includes(this.audioContext.sampleRate)) {
      throw new RelayError('not_supported', `a rate of ${this.audioContext.sampleRate} Hz`);
    }
    this.#mergers = Array.from({ length: MAX_CHANNELS / PER_INPUT }, () => {
      return new ChannelMergerNode(this.audioContext, { numberOfInputs: PER_INPUT });
    });
    this.#capture = this.#makeCapture().catch((error) => {
      throw new RelayError('not_supported', `the capture worklet did not load: ${error.message}`);
    });
    this.#capture.catch(() => {}); // start() tells
    navigator.mediaDevices?.addEventListener('devicechange', this.#onDevices);
    this.audioContext.addEventListener('statechange', this.#onAudio);
    document.addEventListener('visibilitychange', this.#onVisible);
  }

  get state() {
    return this.#state;
  }

  get inputs() {
    return [...this.#inputs];
  }

  get channelNames() {
    return this.#channels.map(({ name }) => name);
  }

  get status() {
    return this.#status;
  }

  get statistics() {
    return this.#statistics;
  }

  /** Newest levels by channel, dBFS, and which have clipped; always the same object. */
  levels() {
    return this.#levels;
  }

  /** From now on it has not clipped. @param {number} channel */
  resetClipped(channel) {
    this.#levels.clipped[channel] = 0;
  }

  // --- inputs ---------------------------------------------------------------------------------

  /** @param {string} deviceId @param {{name?: string, channelCount?: number, channels?: number[], echoCancellation?: boolean}} [options] */
  async addDevice(deviceId, options = {}) {
    const reopen = () => openDevice(deviceId, options);
    const stream = await reopen();
    const label = options.name ?? stream.getAudioTracks()[0].label;
    const count = Math.min(channelCountOf(stream, 1), options.channelCount ?? MAX_CHANNELS);
    const taken = options.channels?.filter((channel) => channel >= 0 && channel < count);
    if (taken?.length === 0) {
      stopTracks(stream);
      throw new RelayError('channel_not_found', `the device has ${count} channels`);
    }
    const what = { kind: /** @type {const} */ ('device'), name: label, deviceId, taken, reopen };
    return this.#addStream(what, stream, count);
  }

  async addTab() {
    const stream = await openTab();
    const { label } = stream.getAudioTracks()[0];
    const what = { kind: /** @type {const} */ ('tab'), name: label || 'Tab' };
    return this.#addStream(what, stream, channelCountOf(stream, 2));
  }

  /** @param {Blob & {name?: string}} file @param {{loop?: boolean}} [options] */
  async addFile(file, options = {}) {
    const name = file.name ?? 'File';
    void this.audioContext.resume();
    await this.#capture; // whose module counts channels
    const played = await playFile(this.audioContext, file, name, options.loop ?? true);
    const what = { kind: /** @type {const} */ ('file'), name };
    const input = this.#add(what, played.source, played.channelCount, played.stop);
    played.element.onended = played.element.onerror = () => this.#ended(input); // or it broke midway
    played.element.currentTime = 0; // what was played to count channels nobody has heard
    played.element.play().catch(() => {}); // a short one is at its end already
    return input;
  }

  /** @param {{frequency: number, name?: string, level?: number}} options `level` in dBFS, -20 unless told. */
  addTone(options) {
    const { frequency, level = -20, name = `${frequency} Hz` } = options;
    const tone = new OscillatorNode(this.audioContext, { frequency });
    const gain = new GainNode(this.audioContext, { gain: 10 ** (level / 20) });
    tone.connect(gain);
    tone.start();
    return this.#add({ kind: 'tone', name }, gain, 1, () => tone.stop());
  }

  /** @param {AudioNode} node @param {number} channelCount @param {string} [name] */
  addNode(node, channelCount, name = 'Node') {
    return this.#add({ kind: 'node', name }, node, channelCount, () => {});
  }

  /** Channels behind it move up. @param {Input} input */
  removeInput(input) {
    const index = this.#inputs.indexOf(input);
    if (index < 0) return;
    input.stop();
    this.#inputs.splice(index, 1);
    this.#freePlaces.push(...input.places);
    this.#channels = this.#channels.filter((channel) => channel.input !== input);
    this.#arrange();
  }

  /** @param {readonly number[]} order The present index of each channel to be. */
  reorderChannels(order) {
    const sorted = [...order].sort((a, b) => a - b);
    if (order.length !== this.#channels.length || sorted.some((from, to) => from !== to)) {
      throw new RangeError('an order has every channel once');
    }
    if (order.every((from, to) => from === to)) return;
    this.#channels = order.map((from) => this.#channels[from]);
    this.#arrange();
  }

  /** @param {number} index @param {string} name Of at most 64 characters, without control ones. */
  renameChannel(index, name) {
    if (!(index in this.#channels)) throw new RangeError(`no channel ${index}`);
    this.#channels[index].name = cleanName(name);
    this.#session?.remember({ channelNames: this.channelNames });
    this.#emit('inputs', this.inputs);
  }

  /** @param {What} what @param {MediaStream} stream @param {number} channelCount */
  #addStream(what, stream, channelCount) {
    const source = new MediaStreamAudioSourceNode(this.audioContext, { mediaStream: stream });
    const silenced = stream.getAudioTracks()[0].muted;
    const input = this.#add({ ...what, silenced }, source, channelCount, () => stopStream(stream, source));
    this.#watch(input, stream);
    return input;
  }

  /** @param {Input} input @param {MediaStream} stream */
  #watch(input, stream) {
    const [track] = stream.getAudioTracks();
    track.addEventListener('ended', () => this.#ended(input));
    input.silenced = track.muted;
    for (const type of ['mute', 'unmute']) {
      track.addEventListener(type, () => {
        input.silenced = track.muted;
        this.#emit('inputs', this.inputs);
      });
    }
  }

  /** @param {Input} input */
  #ended(input) {
    input.ended = true;
    this.#emit('inputs', this.inputs);
  }

  /** @param {What} what @param {AudioNode} source @param {number} width Its channels. @param {() => void} stop */
  #add(what, source, width, stop) {
    const taken = what.taken ?? Array.from({ length: width }, (_, channel) => channel);
    if (this.#channels.length + taken.length > MAX_CHANNELS) {
      stop();
      throw new RelayError('too_many_channels', `a room has at most ${MAX_CHANNELS} channels`);
    }
    const node = new GainNode(this.audioContext, {
      channelCount: width,
      channelCountMode: 'explicit',
      channelInterpretation: 'discrete', // channels are channels, and no left and right
    });
    const splitter = new ChannelSplitterNode(this.audioContext, { numberOfOutputs: width });
    source.connect(node).connect(splitter);
    const places = this.#freePlaces.splice(0, taken.length);
    const input = new Input({ ...what, taken }, node, splitter, places, stop);
    this.#inputs.push(input);
    const name = cleanName(what.name);
    taken.forEach((channel, index) => {
      const merger = this.#mergers[Math.floor(places[index] / PER_INPUT)];
      splitter.connect(merger, channel, places[index] % PER_INPUT);
      const numbered = width === 1 ? name : `${name.slice(0, 60)} ${channel + 1}`;
      this.#channels.push({ input, index, name: numbered });
    });
    this.#arrange();
    void this.audioContext.resume();
    return input;
  }

  /**
   * The channels are others, or in another order. On air that is another stream: what the capture
   * worklet has of the old arrangement and of the new one tells by its number to which it belongs.
   */
  #arrange() {
    const { peak, rms, clipped } = this.#levels;
    const lit = this.#channels.map(({ input, index }) => clipped[input.channels[index] ?? -1] ?? 0);
    peak.fill(NaN);
    rms.fill(NaN);
    clipped.fill(0);
    clipped.set(lit);
    this.#channels.forEach(({ input, index }, channel) => (input.channels[index] = channel));
    if (this.#channels.length > 0) {
      const layout = ++this.#layout;
      const places = this.#channels.map(({ input, index }) => input.places[index]);
      const tell = (/** @type {AudioWorkletNode} */ node) => {
        node.port.postMessage({ type: 'channels', places, layout });
      };
      this.#capture.then(tell, () => {}); // start() tells
      this.#session?.tell({ type: 'arrange', layout, ...this.#described() });
    } // else what is on air stays as it is, silent: a broadcast has a channel
    this.#emit('inputs', this.inputs);
  }

  /** What a registration says of the channels. */
  #described() {
    return { channels: this.#channels.length, channelNames: this.channelNames };
  }

  /** A device that was gone may be back. */
  async #reopenDevices() {
    const known = await navigator.mediaDevices.enumerateDevices();
    const heard = known.filter(({ kind }) => kind === 'audioinput');
    const back = this.#inputs.filter(({ ended, deviceId }) => {
      if (!ended || deviceId === undefined) return false;
      return heard.some((device) => deviceId === '' || device.deviceId === deviceId);
    });
    for (const input of back) {
      const stream = await input.reopen?.().catch(() => null);
      if (!stream) continue;
      if (!this.#inputs.includes(input)) {
        stopTracks(stream); // removed meanwhile
        continue;
      }
      const source = new MediaStreamAudioSourceNode(this.audioContext, { mediaStream: stream });
      source.connect(input.node);
      input.revive(() => stopStream(stream, source));
      this.#watch(input, stream);
      this.#emit('inputs', this.inputs);
    }
  }

  // --- the broadcast --------------------------------------------------------------------------

  /** Goes live; resolves when the server has taken the source, rejects when it refuses it. */
  async start() {
    if (this.#starting !== null) return this.#starting.promise;
    if (this.#session !== null) return;
    if (this.#channels.length === 0) throw new RelayError('no_inputs', 'there is nothing to send');
    this.#become('connecting');
    void this.audioContext.resume();
    const starting = deferred();
    this.#starting = starting;
    try {
      const node = await this.#capture;
      if (this.#starting === starting) this.#connect(node); // else stopped meanwhile
    } catch (error) {
      this.#endStart(/** @type {RelayError} */ (error));
      this.#become('idle');
    }
    return starting.promise;
  }

  /** @param {AudioWorkletNode} node */
  #connect(node) {
    const { roomId, roomToken, server, frameMs, bufferMs, encoding } = this.#options;
    const { port1, port2 } = new MessageChannel();
    const session = new Session({
      renew: async () => {
        const roomToken = (await this.#options.renewToken?.())?.roomToken ?? null;
        if (roomToken !== null) this.#options.roomToken = roomToken;
        return roomToken;
      },
      connecting: (error) => this.#connecting(error),
      registered: () => {
        this.#become('live');
        this.#endStart();
      },
      text: (message) => this.#text(message),
      closed: (error) => {
        this.#endStart(error);
        void this.#refused(error);
      },
      other: (message) => this.#uplink(message),
    });
    this.#session = session;
    const fields = {
      ...this.#described(),
      sampleRate: this.audioContext.sampleRate,
      encoding: encoding ?? 'pcm_s16le',
      frameMs,
      bufferMs,
    };
    const access = { server: serverUrl(server), roomId, roomToken };
    node.port.postMessage({ type: 'blocks', port: port1 }, [port1]);
    session.tell({ type: 'broadcast', access, fields, layout: this.#layout, port: port2 }, [port2]);
  }

  /** @param {RelayError} [error] */
  #endStart(error) {
    if (error === undefined) this.#starting?.resolve();
    else this.#starting?.reject(error);
    this.#starting = null;
  }

  /** Stops: what was sent is played out. Inputs stay, and it may be started again. */
  async stop() {
    this.#endStart(new RelayError('stopped', 'it was stopped before it was live'));
    await this.#leave(this.#status?.fillMs ?? 0);
    if (this.#starting !== null || this.#session !== null) return; // started again meanwhile
    if (this.#state !== 'closed') this.#become('idle');
  }

  /** Ends it for good: inputs are stopped, and the context is closed if it was made here. */
  async close() {
    await this.stop();
    navigator.mediaDevices?.removeEventListener('devicechange', this.#onDevices);
    this.audioContext.removeEventListener('statechange', this.#onAudio);
    document.removeEventListener('visibilitychange', this.#onVisible);
    for (const input of this.#inputs.splice(0)) input.stop();
    this.#channels = [];
    const node = await this.#capture.catch(() => null);
    node?.port.postMessage({ type: 'end' });
    node?.disconnect();
    if (this.#options.audioContext === undefined) await this.audioContext.close();
    this.#become('closed');
  }

  /** @param {RelayError | null} error */
  #connecting(error) {
    if (error === null) return;
    const held = error.code === 'room_suspended';
    this.#become(held ? 'suspended' : 'reconnecting', error.message);
    this.#emit('error', { error });
  }

  /** @param {Message} message */
  #text(message) {
    switch (message.type) {
      case 'sourceStatus': {
        const { type: _, ...status } = message;
        this.#status = /** @type {any} */ (status);
        this.#emit('status', this.#status);
        break;
      }
      case 'roomChanged':
        this.#channels.forEach((channel, index) => {
          channel.name = message.channelNames[index] || channel.name;
        });
        this.#session?.remember({ channelNames: this.channelNames });
        this.#emit('room', message);
        this.#emit('inputs', this.inputs);
        break;
      case 'roomClosed':
        this.#emit('room', message);
        break;
      case 'roomToken':
        this.#options.roomToken = message.roomToken;
        break;
      case 'error':
        this.#emit('error', { error: new RelayError(message.code, message.message) });
    }
  }

  /** @param {RelayError} error */
  async #refused(error) {
    await this.#leave(0);
    this.#become('closed', error.message);
    this.#emit('closed', { code: error.code, reason: error.message, status: error.status });
  }

  /** @param {number} bufferedMs */
  async #leave(bufferedMs) {
    const session = this.#session;
    this.#session = this.#status = null;
    if (session === null) return;
    (await this.#capture).port.postMessage({ type: 'silent' });
    await session.leave(bufferedMs);
  }

  /** @param {any} message */
  #uplink(message) {
    if (message.type !== 'uplink') return;
    const { type: _, ...statistics } = message;
    this.#statistics = statistics;
    this.#emit('statistics', statistics);
  }

  async #makeCapture() {
    const context = this.audioContext;
    await context.audioWorklet.addModule(new URL('./capture-worklet.js', import.meta.url));
    const node = new AudioWorkletNode(context, 'relay-capture', {
      numberOfInputs: this.#mergers.length,
      numberOfOutputs: 0,
      channelCount: PER_INPUT,
      channelCountMode: 'explicit',
      channelInterpretation: 'discrete',
    });
    this.#mergers.forEach((merger, index) => merger.connect(node, 0, index));
    node.port.onmessage = (event) => this.#measure(event.data);
    return node;
  }

  /** @param {import('./capture-worklet.js').CaptureReport} report */
  #measure({ levels, layout }) {
    if (layout !== this.#layout) return; // of what had other places
    const { peak, rms, clipped } = this.#levels;
    for (let channel = 0; channel < levels.length / 3; channel++) {
      peak[channel] = toDecibels(levels[3 * channel]);
      rms[channel] = toDecibels(levels[3 * channel + 1]);
      if (levels[3 * channel + 2] > 0) clipped[channel] = 1;
    }
  }

  /** @param {BroadcasterState} state @param {string} [reason] */
  #become(state, reason) {
    if (state === this.#state) return;
    this.#state = state;
    this.#emit('statechange', { state, reason });
  }

  /** @param {string} type @param {unknown} detail */
  #emit(type, detail) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }
}

/** @param {MediaStream} stream @param {AudioNode} source */
function stopStream(stream, source) {
  stopTracks(stream);
  source.disconnect();
}

/** A promise that somebody else settles; that nobody waits for it is no error. */
function deferred() {
  let resolve = () => {};
  /** @type {(error: RelayError) => void} */
  let reject = () => {};
  /** @type {Promise<void>} */
  const promise = new Promise((yes, no) => {
    resolve = yes;
    reject = no;
  });
  promise.catch(() => {});
  return { promise, resolve, reject };
}

/** A name as the server takes it. @param {string} name */
function cleanName(name) {
  return name.replace(/[\u0000-\u001f\u007f]/g, ' ').slice(0, 64);
}
