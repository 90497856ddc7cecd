// Binary messages of the relay protocol (docs/protocol.md, section 2).

import { RelayError } from './errors.js';

export const HEADER_BYTES = 32;
export const MAX_CHANNELS = 64;
export const SAMPLE_RATES = [8000, 16000, 24000, 32000, 44100, 48000, 88200, 96000];

const VERSION = 1;
const SOURCE_PACKET = 1;
const FRAME = 2;
const LEVELS = 3;
const FLAG_CONCEALED = 1;
const FLAG_DISCONTINUITY = 2;
const TWO_32 = 2 ** 32;

/** @typedef {'pcm_s16le' | 'pcm_f32le'} Encoding */
/**
 * A frame of a room. `samples` is interleaved and a view of the message.
 * @typedef {{kind: 'frame', concealed: boolean, discontinuity: boolean, stream: number,
 *   channelCount: number, sequence: number, sampleCount: number, timestamp: number,
 *   timeUs: number, samples: Int16Array | Float32Array}} Frame
 */
/**
 * Levels of all channels of a room, in dBFS: peak and RMS by turns.
 * @typedef {{kind: 'levels', stream: number, channelCount: number, timeUs: number,
 *   values: Float32Array}} Levels
 */

/** @param {DataView} view @param {number} at */
function readU64(view, at) {
  return view.getUint32(at + 4, true) * TWO_32 + view.getUint32(at, true);
}

/** @param {DataView} view @param {number} at @param {number} value A whole number, 0 … 2^53. */
function writeU64(view, at, value) {
  view.setUint32(at, value % TWO_32, true);
  view.setUint32(at + 4, Math.floor(value / TWO_32), true);
}

/** @param {string} text */
function malformed(text) {
  return new RelayError('malformed', text);
}

/**
 * Parses a binary message of the server.
 *
 * @param {ArrayBufferLike} buffer
 * @param {number} [offset] Where the message starts; a multiple of 4.
 * @param {number} [length] Its bytes.
 * @returns {Frame | Levels}
 * @throws {RelayError} `malformed`: not a frame or levels of this version, or of another length
 *   than its header says.
 */
export function parseServerMessage(buffer, offset = 0, length = buffer.byteLength - offset) {
  if (length < HEADER_BYTES) throw malformed(`a binary message of ${length} bytes`);
  const view = new DataView(buffer, offset, HEADER_BYTES);
  const version = view.getUint8(0);
  const kind = view.getUint8(1);
  const encoding = view.getUint8(2);
  const flags = view.getUint8(3);
  const stream = view.getUint16(4, true);
  const channelCount = view.getUint16(6, true);
  const sampleCount = view.getUint32(12, true);
  const timeUs = readU64(view, 24);
  if (version !== VERSION) throw malformed(`a binary message of version ${version}`);
  const payload = length - HEADER_BYTES;
  if (kind === LEVELS) {
    if (payload !== channelCount * 8) throw malformed(`levels of ${payload} bytes`);
    const values = new Float32Array(buffer, offset + HEADER_BYTES, channelCount * 2);
    return { kind: 'levels', stream, channelCount, timeUs, values };
  }
  if (kind !== FRAME || encoding > 1) throw malformed(`kind ${kind}, encoding ${encoding}`);
  const count = channelCount * sampleCount;
  if (payload !== count * (encoding ? 4 : 2)) throw malformed(`a frame of ${payload} bytes`);
  return {
    kind: 'frame',
    concealed: (flags & FLAG_CONCEALED) !== 0,
    discontinuity: (flags & FLAG_DISCONTINUITY) !== 0,
    stream,
    channelCount,
    sequence: view.getUint32(8, true),
    sampleCount,
    timestamp: readU64(view, 16),
    timeUs,
    samples: encoding
      ? new Float32Array(buffer, offset + HEADER_BYTES, count)
      : new Int16Array(buffer, offset + HEADER_BYTES, count),
  };
}

/** Added to a double and taken away again it leaves that rounded half to even, as servers round. */
const ROUND = 1.5 * 2 ** 52;

/**
 * Makes a source packet.
 *
 * @param {Float32Array} planes Channel after channel, `sampleCount` samples each, ±1.
 * @param {{encoding: Encoding, channelCount: number, sampleCount: number, sequence: number,
 *   timestamp: number, timeUs: number, firstChannel?: number}} fields
 * @returns {ArrayBuffer}
 */
export function packSourcePacket(planes, fields) {
  const { encoding, channelCount, sampleCount } = fields;
  const count = channelCount * sampleCount;
  const isFloat = encoding === 'pcm_f32le';
  const buffer = new ArrayBuffer(HEADER_BYTES + count * (isFloat ? 4 : 2));
  const view = new DataView(buffer);
  view.setUint8(0, VERSION);
  view.setUint8(1, SOURCE_PACKET);
  view.setUint8(2, isFloat ? 1 : 0);
  view.setUint16(4, fields.firstChannel ?? 0, true);
  view.setUint16(6, channelCount, true);
  view.setUint32(8, fields.sequence >>> 0, true);
  view.setUint32(12, sampleCount, true);
  writeU64(view, 16, fields.timestamp);
  writeU64(view, 24, fields.timeUs);
  if (isFloat) {
    new Float32Array(buffer, HEADER_BYTES, count).set(planes.subarray(0, count));
    return buffer;
  }
  const samples = new Int16Array(buffer, HEADER_BYTES, count);
  for (let i = 0; i < count; i++) {
    const scaled = planes[i] * 32768;
    samples[i] = scaled >= 32767 ? 32767 : scaled <= -32768 ? -32768 : scaled + ROUND - ROUND;
  }
  return buffer;
}
