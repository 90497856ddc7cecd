// The client's signal path, piece by piece, on samples of the test's.

import { Concealer } from '/static/client/conceal.js';
import { FrameRing } from '/static/client/frame-ring.js';
import { Mixer } from '/static/client/mixer.js';
import { Resampler, resamplerTable } from '/static/client/resampler.js';
import { packSourcePacket, parseServerMessage } from '/static/client/wire.js';
import { decode, encode } from './arrays.js';

/** A source packet of float planes. */
export function pack(planes, fields) {
  return encode(new Uint8Array(packSourcePacket(new Float32Array(decode(planes)), fields)));
}

/** What a message says; the code of the refusal of one that is none. */
export function parse(message) {
  try {
    const { samples, values, ...rest } = parseServerMessage(decode(message));
    return { ...rest, samples: samples && Array.from(samples), values: values && [...values] };
  } catch (error) {
    return error.code;
  }
}

/** Frames (interleaved floats of one length) mixed one after another, the mix set before each. */
export function mix(frames, channelCount, mask, mixes) {
  const mixer = new Mixer();
  const sides = [[], []];
  frames.forEach((frame, index) => {
    const samples = new Float32Array(decode(frame));
    const sampleCount = samples.length / channelCount;
    const [left, right] = [new Float32Array(sampleCount), new Float32Array(sampleCount)];
    if (mixes[index] !== null) mixer.setMix(mixes[index]);
    const [maskLo, maskHi] = mask;
    mixer.mix({ samples, channelCount, sampleCount, maskLo, maskHi }, 0, left, right, 0);
    sides[0].push(...left);
    sides[1].push(...right);
  });
  const levels = new Float32Array(128);
  mixer.takeLevels(levels);
  return [...sides.map((side) => encode(Float32Array.from(side))), encode(levels)];
}

/** A signal resampled in blocks of 128, as the worklet does. */
export function resample(signal, step, count) {
  const input = new Float32Array(decode(signal));
  const resampler = new Resampler(resamplerTable(Math.max(1, step)));
  const output = new Float32Array(count);
  let position = resampler.half;
  for (let at = 0; at + 128 <= count; at += 128) {
    const block = output.subarray(at, at + 128);
    resampler.process(input, input, position, step, block, new Float32Array(128));
    position += 128 * step;
  }
  return encode(output);
}

/** A signal with a gap in it that is concealed. */
export function conceal(signal, rate, gapAt, gap) {
  const samples = new Float32Array(decode(signal));
  const other = samples.slice();
  const concealer = new Concealer(rate);
  concealer.start(samples, other, gapAt);
  concealer.fill(samples, other, gapAt, gap);
  concealer.resume(samples, other, gapAt + gap, samples.length - gapAt - gap);
  return encode(samples);
}

/** Messages of many sizes through a ring from a full one to an empty one; what came out. */
export function ring(messages, bytes) {
  const ring = new FrameRing(FrameRing.allocate(bytes));
  const layout = { sampleRate: 48000, mixed: false, maskLo: -1, maskHi: 1 };
  const taken = [];
  let refused = 0;
  for (const message of messages) {
    if (!ring.write(decode(message), layout)) {
      refused++;
      ring.drain((frame) => taken.push([frame.sequence, ...frame.samples]));
      ring.write(decode(message), layout);
    }
  }
  ring.drain((frame) => taken.push([frame.sequence, ...frame.samples]));
  return { taken, refused };
}
