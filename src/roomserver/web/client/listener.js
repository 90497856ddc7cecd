// A listener of one room.

import { findCapabilities } from './capabilities.js';
import { nowUs } from './clock.js';
import { RelayError } from './errors.js';
import { serverUrl } from './join.js';
import { toDecibels } from './meter.js';
import { MixState, paddedMix } from './mix-state.js';
import { BufferPlayer, WorkletPlayer } from './player.js';
import { Presets } from './presets.js';
import { QualityJudge } from './quality.js';
import { Session } from './session.js';

const DRY_MS = 300; // without sound until it is told
const VOLUME_S = 0.015; // time constant of a change of volume
const LEVELS_MS = 500; // they come ten times a second; after so long they are of something else
const LATENCY_WEIGHT = 0.05; // of a report's latency in the mean

/** @typedef {import('./connection.js').Message} Message */
/** @typedef {import('./mixer.js').Mix} Mix */
/** @typedef {'idle' | 'connecting' | 'waiting' | 'buffering' | 'live' | 'suspended' | 'reconnecting' | 'closed'} PlayerState */
/** @typedef {'mix' | 'multichannel'} Mode */
/**
 * @typedef {{latencyMs: number, bufferMs: number, targetMs: number, jitterMs: number,
 *   driftPpm: number, rttMs: number, framesReceived: number, framesMissing: number,
 *   concealedSamples: number, underruns: number, bytesReceived: number, reconnects: number,
 *   quality: import('./quality.js').Quality}} ListenerStatistics
 */
/**
 * @typedef {{server?: string | URL, roomId: string, roomToken: string, nickname?: string,
 *   mode?: Mode, mix?: Mix, channels?: number[] | null, bufferMs?: number,
 *   encoding?: import('./wire.js').Encoding,
 *   rejoin?: () => Promise<{roomToken: string}>, audioContext?: AudioContext}} ListenerOptions
 */

/**
 * Hears a room; see relay-client.d.ts for what each member means.
 */
export class Listener extends EventTarget {
  #options;
  #mode;
  #state = /** @type {PlayerState} */ ('idle');
  #room = {
    roomId: '',
    roomName: '',
    listenerCount: 0,
    hasBroadcaster: false,
    state: /** @type {'waiting' | 'active' | 'suspended' | 'closed'} */ ('waiting'),
    suspendedUntil: /** @type {number | null} */ (null),
  };
  /** @type {{stream: number, channelCount: number, channelNames: string[], sampleRate: number, frameMs: number} | null} */
  #format = null;
  #mix;
  #presets;
  /** @type {AudioContext | null} */
  #context = null;
  /** @type {import('./player.js').Player | null} */
  #player = null;
  /** @type {Session | null} */
  #session = null;
  /** @type {GainNode | null} */
  #output = null;
  /** @type {GainNode | null} */
  #gain = null;
  #volume = 1;
  #muted = false;
  #registered = false;
  #lastPlaying = -Infinity;
  /** @type {import('./listener-session.js').Arrivals | null} */
  #arrivals = null;
  /** @type {import('./jitter.js').Figures | null} */
  #figures = null;
  #latencyMs = NaN;
  #deviceMs = NaN; // what of it comes after the player: no buffer and no connection changes it
  #heardFrames = 0; // as last reported to the server
  #judge = new QualityJudge();
  /** @type {ListenerStatistics} */
  #statistics = {
    latencyMs: NaN,
    bufferMs: 0,
    targetMs: 0,
    jitterMs: 0,
    driftPpm: 0,
    rttMs: NaN,
    framesReceived: 0,
    framesMissing: 0,
    concealedSamples: 0,
    underruns: 0,
    bytesReceived: 0,
    reconnects: 0,
    quality: 'unknown',
  };
  #levelsAt = -Infinity;
  #levels = {
    master: {
      peak: /** @type {[number, number]} */ ([NaN, NaN]),
      rms: /** @type {[number, number]} */ ([NaN, NaN]),
    },
    channels: { peak: new Float32Array(64).fill(NaN), rms: new Float32Array(64).fill(NaN) },
  };
  /** @type {((message: Message) => void)[]} */
  #subscribed = [];
  #onContextState = () => this.#followContext();
  /** Phones silence pages that are not seen, and leave it at that. */
  #onVisible = () => void (document.hidden || this.#context?.resume());

  /** @param {ListenerOptions} options */
  constructor(options) {
    super();
    this.#options = { ...options }; // the token is renewed
    this.capabilities = findCapabilities();
    this.#mode = this.capabilities.worklet ? (options.mode ?? 'mix') : 'mix';
    this.#room.roomId = options.roomId;
    this.#mix = new MixState(
      options.mix ?? {},
      (change) => this.#session?.send({ type: 'setMix', ...change }),
      (by) => this.#mixChanged(by),
    );
    this.#presets = new Presets((message) => this.#session?.send(message));
  }

  get state() {
    return this.#state;
  }

  get room() {
    return { ...this.#room };
  }

  get format() {
    return this.#format;
  }

  get mode() {
    return this.#mode;
  }

  get mix() {
    return paddedMix(this.#mix.current, this.#format?.channelCount ?? 0);
  }

  get statistics() {
    return this.#statistics;
  }

  get audioContext() {
    return this.#context;
  }

  get output() {
    if (this.#output === null) throw new RelayError('not_started', 'there is sound after start()');
    return this.#output;
  }

  get volume() {
    return this.#volume;
  }

  set volume(volume) {
    this.#volume = volume;
    this.#setGain();
  }

  get muted() {
    return this.#muted;
  }

  set muted(muted) {
    this.#muted = muted;
    this.#setGain();
  }

  /** Starts audio and connects; from a user's gesture, or browsers keep it silent. */
  async start() {
    if (this.#state !== 'idle') return;
    this.#become('connecting');
    const context = this.#options.audioContext ?? new AudioContext({ latencyHint: 'interactive' });
    this.#context = context;
    void context.resume(); // while this is the gesture's doing; it may take until one comes
    context.addEventListener('statechange', this.#onContextState);
    document.addEventListener('visibilitychange', this.#onVisible);
    const output = context.createGain();
    this.#output = output;
    this.#gain = context.createGain();
    this.#setGain();
    output.connect(this.#gain).connect(context.destination);
    /** @param {import('./player.js').Report} report */
    const report = (report) => this.#report(report);
    const player = await this.#makePlayer(context, report);
    if (this.#output !== output) return player?.end(); // stopped meanwhile
    if (player === null) return;
    this.#player = player;
    player.output.connect(output);
    player.setMix(this.#mix.current);
    player.setTarget(this.#options.bufferMs ?? null);
    this.#connect(player);
    this.#followContext();
  }

  /** @param {AudioContext} context @param {(report: import('./player.js').Report) => void} report */
  async #makePlayer(context, report) {
    if (!this.capabilities.worklet) return new BufferPlayer(context, report);
    try {
      return await WorkletPlayer.create(context, report, () => this.#playerFailed());
    } catch (error) {
      if (this.#context !== context) return null; // stopped meanwhile
      await this.stop();
      throw new RelayError('player_failed', `the audio worklet did not load: ${error}`);
    }
  }

  /** Ends it. It may be started again. */
  async stop() {
    if (this.#state === 'idle') return;
    await this.#end();
    this.#become('idle');
  }

  /** Who mixes. @param {Mode} mode @returns {Promise<void>} */
  async setMode(mode) {
    if (mode === 'multichannel' && !this.capabilities.worklet) {
      throw new RelayError('not_supported', 'mixing here needs AudioWorklet: a page over https has it');
    }
    if (mode === this.#mode) return;
    this.#mode = mode;
    this.#forgetLevels();
    this.#session?.remember(this.#subscription());
    if (!this.#registered) return;
    this.#mix.flush();
    await this.#subscribe();
  }

  /** Changes the mix: at once what is mixed here, and of what the server mixes in a moment. @param {Mix} change */
  setMix(change) {
    this.#mix.change(change);
  }

  /** @param {string} name @returns {Promise<void>} */
  async savePreset(name) {
    this.#mix.flush();
    await this.#presets.ask({ type: 'savePreset', name }, 'presetSaved');
  }

  /** @param {string} name @returns {Promise<Mix>} The mix, which is in force. */
  async loadPreset(name) {
    this.#mix.flush();
    const { mix } = await this.#presets.ask({ type: 'loadPreset', name }, 'preset');
    this.#mix.loaded(mix);
    return this.mix;
  }

  /** @param {string} name @returns {Promise<void>} */
  async deletePreset(name) {
    await this.#presets.ask({ type: 'deletePreset', name }, 'presetDeleted');
  }

  /** @returns {Promise<string[]>} */
  async listPresets() {
    return (await this.#presets.ask({ type: 'listPresets' }, 'presets')).names;
  }

  /** Newest levels in dBFS; always the same object. */
  levels() {
    // A player reports all the time; the server's levels stay away with the connection.
    if (this.#mode === 'mix' && performance.now() - this.#levelsAt > LEVELS_MS) this.#forgetLevels();
    return this.#levels;
  }

  // --- the connection -------------------------------------------------------------------------

  /** @param {import('./player.js').Player} player */
  #connect(player) {
    const { roomId, roomToken, nickname, server, encoding } = this.#options;
    const session = new Session({
      renew: () => this.#rejoin(),
      connecting: (error) => this.#connecting(error),
      registered: (message) => this.#welcome(message),
      text: (message) => this.#text(message),
      closed: (error) => this.#refused(error),
      other: (message) => this.#other(message),
    });
    this.#session = session;
    const fields = { nickname, encoding: encoding ?? 'pcm_s16le', ...this.#subscription() };
    const access = { server: serverUrl(server), roomId, roomToken };
    session.tell({ type: 'listen', access, fields, sink: player.sink }, player.transfer);
  }

  /** A new token, if there is one. */
  async #rejoin() {
    const roomToken = (await this.#options.rejoin?.())?.roomToken ?? null;
    if (roomToken !== null) this.#options.roomToken = roomToken;
    return roomToken;
  }

  #subscription() {
    return {
      mode: this.#mode,
      channels: this.#options.channels ?? null,
      levels: this.#mode === 'mix',
      mix: this.#mix.current,
    };
  }

  /** Asks for what is wanted; resolves when it is in force. */
  #subscribe() {
    return new Promise((resolve) => {
      this.#subscribed.push(resolve);
      this.#session?.send({ type: 'subscribe', ...this.#subscription() });
    });
  }

  /** @param {RelayError | null} error */
  #connecting(error) {
    this.#registered = false;
    this.#mix.lost();
    for (const resolve of this.#subscribed.splice(0)) resolve({ type: 'lost' }); // the next
    // registration says the same
    if (error === null) return;
    this.#emit('error', { error });
    this.#become('reconnecting', error.message);
  }

  /** @param {Message} message */
  #welcome(message) {
    this.#registered = true;
    this.#mix.registered();
    if (message.mode !== this.#mode) void this.#subscribe(); // changed after it was asked for
    this.#judge.reset();
    const { roomId, roomName, listenerCount, hasBroadcaster, state } = message;
    this.#changeRoom({ roomId, roomName, listenerCount, hasBroadcaster, state });
    if (message.stream !== undefined) this.#setFormat(message);
    this.#settle();
  }

  /** @param {Message} message */
  #text(message) {
    if (this.#presets.heard(message)) return;
    switch (message.type) {
      case 'streamStarted':
        this.#setFormat(message);
        break;
      case 'subscribed':
        this.#subscribed.shift()?.(message);
        break;
      case 'mixChanged':
        this.#mix.heard(/** @type {Mix & Message} */ (message));
        break;
      case 'preset':
        this.#mix.loaded(message.mix);
        break;
      case 'roomStatus': {
        const { state, hasBroadcaster, listenerCount } = message;
        const suspendedUntil = state === 'suspended' ? this.#room.suspendedUntil : null;
        this.#changeRoom({ state, hasBroadcaster, listenerCount, suspendedUntil });
        break;
      }
      case 'roomSuspended':
        this.#changeRoom({ state: 'suspended', suspendedUntil: message.suspendedUntil });
        break;
      case 'roomResumed':
        this.#changeRoom({ state: 'active', suspendedUntil: null });
        break;
      case 'roomChanged':
        this.#changeRoom({ roomName: message.roomName });
        if (this.#format !== null) this.#setFormat({ ...this.#format, ...message });
        break;
      case 'roomClosed':
        this.#changeRoom({ state: 'closed' });
        break;
      case 'roomToken': {
        const { roomToken, expiresAt } = message;
        this.#options.roomToken = roomToken;
        this.#emit('token', { roomToken, expiresAt });
        break;
      }
      case 'error':
        if (message.code === 'invalid_message') this.#mix.refused();
        this.#emit('error', { error: new RelayError(message.code, message.message) });
    }
    this.#settle();
  }

  /** @param {RelayError} error */
  async #refused(error) {
    await this.#end();
    this.#become('closed', error.message);
    this.#emit('closed', { code: error.code, reason: error.message, status: error.status });
  }

  /** @param {any} message */
  #other(message) {
    switch (message.type) {
      case 'frame':
        this.#player?.take(message.frame);
        break;
      case 'levels': {
        if (this.#mode !== 'mix') break;
        this.#levelsAt = performance.now();
        const { peak, rms } = this.#levels.channels;
        for (let channel = 0; channel < message.values.length / 2; channel++) {
          peak[channel] = message.values[2 * channel];
          rms[channel] = message.values[2 * channel + 1];
        }
        break;
      }
      case 'arrivals':
        this.#arrivals = message;
        this.#tick();
    }
  }

  // --- the player -----------------------------------------------------------------------------

  /** @param {import('./player.js').Report} report */
  #report(report) {
    const { figures, levels } = report;
    const { master, channels } = this.#levels;
    for (let side = 0; side < 2; side++) {
      master.peak[side] = toDecibels(levels[side]);
      master.rms[side] = toDecibels(levels[2 + side]);
    }
    if (this.#mode === 'multichannel') {
      for (let channel = 0; channel < 64; channel++) {
        channels.peak[channel] = toDecibels(levels[4 + 2 * channel]);
        channels.rms[channel] = toDecibels(levels[5 + 2 * channel]);
      }
    }
    this.#figures = figures;
    if (figures.playing) {
      this.#lastPlaying = performance.now();
      this.#measureLatency(report.frame, figures.timeUs);
    }
    this.#settle();
  }

  /** @param {number} frame Of the context, at which what is of `timeUs` leaves the player. @param {number} timeUs */
  #measureLatency(frame, timeUs) {
    const context = this.#context;
    const arrivals = this.#arrivals;
    if (context === null || arrivals === null || !arrivals.clockKnown) return;
    // From now on until it is heard, by what the browser knows of itself and of the device.
    const delay = context.baseLatency + (context.outputLatency || 0);
    const wait = frame / context.sampleRate - context.currentTime + delay;
    const latencyMs = (nowUs() + arrivals.offsetUs - timeUs) / 1000 + wait * 1000;
    this.#latencyMs = followed(this.#latencyMs, latencyMs);
    // Of a report that came late part of the wait is over: that was no shorter delay.
    const ahead = this.#player?.ahead ?? 0;
    this.#deviceMs = followed(this.#deviceMs, (ahead + delay) * 1000);
  }

  /** Once a second. */
  #tick() {
    const arrivals = this.#arrivals;
    const figures = this.#figures;
    if (arrivals === null || figures === null) return;
    this.#settle(); // a player that stands still reports nothing
    const live = this.#state === 'live';
    const rate = this.#format?.sampleRate ?? 48000;
    const concealedMs = (figures.concealedSamples / rate) * 1000;
    const latencyMs = live ? this.#latencyMs : NaN;
    const deviceMs = live ? this.#deviceMs : NaN;
    if (!live) this.#judge.reset();
    this.#statistics = {
      latencyMs,
      bufferMs: figures.bufferMs,
      targetMs: figures.targetMs,
      jitterMs: arrivals.jitterMs,
      driftPpm: figures.driftPpm,
      rttMs: arrivals.clockKnown ? arrivals.roundTripMs : NaN,
      framesReceived: arrivals.framesReceived,
      framesMissing: arrivals.framesMissing,
      concealedSamples: figures.concealedSamples,
      underruns: figures.underruns,
      bytesReceived: arrivals.bytesReceived,
      reconnects: arrivals.reconnects,
      quality: live
        ? this.#judge.judge(concealedMs, latencyMs - deviceMs, arrivals.jitterMs)
        : 'unknown',
    };
    this.#session?.tell({ type: 'buffer', ms: figures.bufferMs });
    if (live && !Number.isNaN(latencyMs) && arrivals.framesReceived !== this.#heardFrames) {
      this.#heardFrames = arrivals.framesReceived;
      this.#session?.send({
        type: 'stats',
        bufferMs: rounded(figures.bufferMs + deviceMs), // what is no lag
        jitterMs: rounded(arrivals.jitterMs),
        latencyMs: rounded(latencyMs),
        lost: arrivals.framesMissing,
      });
    }
    this.#emit('statistics', this.#statistics);
  }

  #playerFailed() {
    const error = new RelayError('player_failed', 'the browser stopped the audio worklet');
    void this.#refused(error);
  }

  #followContext() {
    const running = this.#context?.state === 'running';
    this.#session?.tell({ type: 'hold', held: !running });
    this.#settle();
  }

  // --- what is told ---------------------------------------------------------------------------

  /** The state follows from room, sound and connection. */
  #settle() {
    if (!this.#registered || this.#state === 'closed' || this.#state === 'idle') return;
    if (this.#context?.state !== 'running') this.#become('buffering', 'audio_suspended');
    else if (performance.now() - this.#lastPlaying < DRY_MS) this.#become('live');
    else if (this.#room.state === 'suspended') this.#become('suspended');
    else if (!this.#room.hasBroadcaster) this.#become('waiting');
    else this.#become('buffering');
  }

  /** @param {PlayerState} state @param {string} [reason] */
  #become(state, reason) {
    if (state === this.#state) return;
    this.#state = state;
    this.#emit('statechange', { state, reason });
  }

  /** @param {Partial<Listener['room']>} change */
  #changeRoom(change) {
    Object.assign(this.#room, change);
    this.#emit('room', this.room);
  }

  /** @param {Message | {[field: string]: any}} message */
  #setFormat(message) {
    const { stream, channelCount, sampleRate, frameMs } = message;
    const names = message.channelNames ?? [];
    const channelNames = Array.from({ length: channelCount }, (_, c) => names[c] || `${c + 1}`);
    this.#format = { stream, channelCount, channelNames, sampleRate, frameMs };
    this.#forgetLevels(channelCount);
    this.#emit('format', this.#format);
  }

  /** Those of the channels. @param {number} [from] */
  #forgetLevels(from = 0) {
    this.#levels.channels.peak.fill(NaN, from);
    this.#levels.channels.rms.fill(NaN, from);
  }

  /** @param {'self' | 'owner' | 'preset'} by */
  #mixChanged(by) {
    this.#player?.setMix(this.#mix.current);
    this.#session?.remember({ mix: this.#mix.current });
    this.#emit('mix', { mix: this.mix, by });
  }

  #setGain() {
    const gain = this.#gain;
    if (gain === null) return;
    const volume = this.#muted ? 0 : this.#volume;
    gain.gain.setTargetAtTime(volume, gain.context.currentTime, VOLUME_S);
  }

  async #end() {
    const session = this.#session;
    const context = this.#context;
    this.#registered = false;
    this.#mix.end();
    this.#player?.end();
    context?.removeEventListener('statechange', this.#onContextState);
    document.removeEventListener('visibilitychange', this.#onVisible);
    this.#output?.disconnect();
    this.#gain?.disconnect();
    this.#session = this.#player = this.#context = this.#output = this.#gain = null;
    this.#figures = this.#arrivals = null;
    this.#latencyMs = this.#deviceMs = NaN;
    this.#lastPlaying = this.#levelsAt = -Infinity;
    await session?.leave();
    if (this.#options.audioContext === undefined) await context?.close();
  }

  /** @param {string} type @param {unknown} detail */
  #emit(type, detail) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }
}

/** A mean that goes along at once with what is no fluctuation. @param {number} mean @param {number} ms */
function followed(mean, ms) {
  if (Number.isNaN(mean) || Math.abs(ms - mean) > 100) return ms;
  return mean + (ms - mean) * LATENCY_WEIGHT;
}

/** @param {number} value */
function rounded(value) {
  return Math.round(value * 10) / 10;
}
