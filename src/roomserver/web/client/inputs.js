// What a broadcast is made of: devices, tabs, files, tones, and any audio node.

import { RelayError } from './errors.js';
import { MAX_CHANNELS } from './wire.js';

const GAIN_S = 0.01; // time constant of a change of gain
const PLAYS_MS = 5000; // a file that nothing is heard of for so long does not play
/** Processing that is for speech in a call: it spoils everything else. */
const UNPROCESSED = { echoCancellation: false, noiseSuppression: false, autoGainControl: false };

/** @typedef {'device' | 'tab' | 'file' | 'tone' | 'node'} InputKind */

/** One input: its node, and what stops it. */
export class Input {
  #gain = 1;
  #muted = false;
  #splitter;
  #stop;
  /** Ended by itself: its device is gone, its file is over or broke. */
  ended = false;
  /** @type {number[]} Which channel of the room each of its channels is. */
  channels = [];

  /**
   * @param {{kind: InputKind, name: string, taken: number[],
   *   deviceId?: string, reopen?: () => Promise<MediaStream>, silenced?: boolean}} what `taken`: which
   *   channels of the source; `reopen`: opens the device again as it was opened
   * @param {GainNode} node @param {ChannelSplitterNode} splitter Behind it.
   * @param {number[]} places Where its channels go; see `Broadcaster`.
   * @param {() => void} stop
   */
  constructor(what, node, splitter, places, stop) {
    this.kind = what.kind;
    this.name = what.name;
    this.taken = what.taken;
    this.channelCount = what.taken.length;
    /** @type {string | undefined} */
    this.deviceId = what.deviceId;
    this.reopen = what.reopen;
    /** By the system: what it hears is withheld. */
    this.silenced = what.silenced ?? false;
    this.node = node;
    this.places = places;
    this.#splitter = splitter;
    this.#stop = stop;
  }

  /** Linear. */
  get gain() {
    return this.#gain;
  }

  set gain(gain) {
    this.#gain = gain;
    this.#apply();
  }

  get muted() {
    return this.#muted;
  }

  set muted(muted) {
    this.#muted = muted;
    this.#apply();
  }

  /** Another source takes the place of one that ended. @param {() => void} stop */
  revive(stop) {
    this.#stop = stop;
    this.ended = false;
  }

  stop() {
    this.#stop();
    this.node.disconnect();
    this.#splitter.disconnect();
  }

  #apply() {
    const { gain, context } = this.node;
    gain.setTargetAtTime(this.#muted ? 0 : this.#gain, context.currentTime, GAIN_S);
  }
}

/** @param {unknown} error What getUserMedia and getDisplayMedia throw. */
function mediaError(error) {
  const name = error instanceof Error ? error.name : '';
  const text = error instanceof Error ? error.message : String(error);
  if (name === 'NotAllowedError') return new RelayError('not_allowed', text);
  if (name === 'NotFoundError' || name === 'OverconstrainedError') {
    return new RelayError('device_not_found', text);
  }
  return new RelayError('device_failed', text);
}

function mediaDevices() {
  if (navigator.mediaDevices === undefined) {
    throw new RelayError('insecure_context', 'browsers give microphones to pages over https only');
  }
  return navigator.mediaDevices;
}

/** Opens a device. @param {string} deviceId @param {{channelCount?: number, echoCancellation?: boolean}} options */
export async function openDevice(deviceId, options) {
  const { echoCancellation = false, channelCount } = options;
  const processing = echoCancellation ? { ...UNPROCESSED, echoCancellation } : UNPROCESSED;
  const audio = {
    ...processing,
    channelCount: { ideal: channelCount ?? MAX_CHANNELS }, // as many as it has
    ...(deviceId === '' || deviceId === 'default' ? {} : { deviceId: { exact: deviceId } }),
  };
  return mediaDevices()
    .getUserMedia({ audio })
    .catch((error) => {
      throw mediaError(error);
    });
}

/** Asks for a tab, window or screen with sound. */
export async function openTab() {
  const devices = mediaDevices();
  /** @type {DisplayMediaStreamOptions & {systemAudio?: string}} */
  const wish = { audio: UNPROCESSED, video: { frameRate: 1 }, systemAudio: 'include' };
  const stream = await devices.getDisplayMedia(wish).catch((error) => {
    throw mediaError(error);
  });
  // Browsers share no sound without a picture. Nobody needs that, but it ends with the sound.
  if (stream.getAudioTracks().length === 0) {
    stopTracks(stream);
    throw new RelayError('no_audio', 'what was chosen shares no sound');
  }
  return stream;
}

/**
 * Plays a file as it is read: decoded whole, an hour would take more than a gigabyte.
 * @param {BaseAudioContext} context With the module of the capture worklet.
 * @param {Blob} file @param {string} name @param {boolean} loop
 */
export async function playFile(context, file, name, loop) {
  const url = URL.createObjectURL(file);
  const element = new Audio(url);
  element.loop = loop;
  // The keys of a keyboard that pause players are not for what is on air.
  element.onpause = () => void (element.ended || element.play().catch(() => {}));
  const source = new MediaElementAudioSourceNode(/** @type {AudioContext} */ (context), {
    mediaElement: element,
  });
  const stop = () => {
    element.onended = element.onerror = element.onpause = null;
    element.removeAttribute('src');
    element.load();
    URL.revokeObjectURL(url);
    source.disconnect();
  };
  try {
    await element.play();
    const channelCount = await countChannels(source);
    if (!hasSound(element)) throw new Error('there is no sound in it');
    return { element, source, channelCount, stop };
  } catch (error) {
    stop();
    const isForbidden = error instanceof Error && error.name === 'NotAllowedError';
    if (isForbidden || context.state !== 'running') {
      throw new RelayError('gesture_needed', 'no sound may run yet');
    }
    throw new RelayError('not_audio', `${name} can't be played`);
  }
}

/** Of what a node puts out; browsers tell it the audio thread alone. @param {AudioNode} source @returns {Promise<number>} */
function countChannels(source) {
  const node = new AudioWorkletNode(source.context, 'relay-width', {
    numberOfOutputs: 0,
    channelCountMode: 'max',
    channelInterpretation: 'discrete',
  });
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => done(() => reject(new Error('nothing plays'))), PLAYS_MS);
    /** @param {() => void} end */
    const done = (end) => {
      clearTimeout(timer);
      source.disconnect(node);
      end();
    };
    node.port.onmessage = (event) => done(() => resolve(event.data));
    source.connect(node);
  });
}

/** Whether what plays is not a picture alone. @param {any} element */
function hasSound({ audioTracks, mozHasAudio, webkitAudioDecodedByteCount: bytes = 1 }) {
  return mozHasAudio ?? (audioTracks === undefined ? bytes > 0 : audioTracks.length > 0);
}

/** Lets go of what it comes from. @param {MediaStream} stream */
export function stopTracks(stream) {
  for (const track of stream.getTracks()) track.stop();
}

/** Channels of a stream's track. @param {MediaStream} stream @param {number} fallback */
export function channelCountOf(stream, fallback) {
  return stream.getAudioTracks()[0]?.getSettings().channelCount ?? fallback;
}
