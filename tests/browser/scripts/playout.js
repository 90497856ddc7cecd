// A player's jitter buffer against simulated time: a tone is sent, and what comes out looked at.
//
// Everything is in frames of the listening device's clock; the source's may run at another speed.

import { JitterBuffer } from '/static/client/jitter.js';
import { resamplerTables } from '/static/client/resampler.js';
import { encode } from './arrays.js';

/** @returns {() => number} Numbers in 0 … 1, the same every time. */
function randomNumbers(seed) {
  return () => {
    seed = (Math.imul(seed, 1664525) + 1013904223) >>> 0;
    return seed / 2 ** 32;
  };
}

/** A player for the options of `playTone`, before its first frame. */
function playerFor({ rate, contextRate = rate }) {
  return new JitterBuffer(contextRate, resamplerTables(contextRate));
}

/** How many arrays of floats, of `least` at least, are made while `playTone` plays. */
export function countAllocations(options, least) {
  const player = playerFor(options);
  const kept = globalThis.Float32Array;
  let count = 0;
  globalThis.Float32Array = new Proxy(kept, {
    construct(target, given) {
      if (typeof given[0] === 'number' && given[0] >= least) count++;
      return new target(...given);
    },
  });
  try {
    playTone(options, player);
  } finally {
    globalThis.Float32Array = kept;
  }
  return count;
}

/** Frames of a sine, by their first sample; those that begin at the same phase are made once. */
function sineFrames(hertz, rate, count) {
  const made = new Map();
  return (first) => {
    const phase = (first * hertz) % rate;
    let frame = made.get(phase);
    if (frame === undefined) {
      frame = new Float32Array(count);
      for (let i = 0; i < count; i++) {
        frame[i] = 0.5 * Math.sin((2 * Math.PI * (phase + i * hertz)) / rate);
      }
      made.set(phase, frame);
    }
    return frame;
  };
}

/**
 * @param {{rate: number, contextRate?: number, seconds: number, ppm?: number, frameMs?: number,
 *   jitterMs?: number, hertz: number, bufferMs?: number | null,
 *   lost?: number[], stalls?: {at: number, ms: number}[], slower?: {at: number, ms: number}[],
 *   restarts?: number[], restartRate?: number, apartMs?: number, seed?: number,
 *   setLater?: {at: number, bufferMs: number | null},
 *   keep?: [from: number, to: number][]}} options
 *   `lost`: numbers of frames that never come. `stalls`: from second `at` on nothing comes for so
 *   long, then all of it at once. `slower`: from then on the way takes so much longer (negative:
 *   less). `apartMs`: two frames are never closer, so that what waited comes in a row. `restarts`:
 *   seconds at which another stream begins, of `restartRate`. `seed`: of the jitter.
 *   `setLater`: another target, and when. `keep`: seconds of the output to return. `skippedMs` in the figures: what was left out of sound that went on.
 */
export function playTone(options, player = playerFor(options)) {
  let { rate } = options;
  const { seconds, hertz, ppm = 0, frameMs = 20, jitterMs = 0 } = options;
  const contextRate = options.contextRate ?? rate;
  const { lost = [], stalls = [], slower = [], restarts = [], keep = [], apartMs = 0 } = options;
  let { setLater } = options;
  const random = randomNumbers(options.seed ?? 1);
  let samples = (rate * frameMs) / 1000;
  const speed = 1 + ppm * 1e-6; // of the source's clock, by the device's
  player.setMix({ faders: [], pans: [-1, 1], mutes: [], solos: [], master: 1 });
  if (options.bufferMs !== undefined) player.setTarget(options.bufferMs);
  const left = new Float32Array(128);
  const right = new Float32Array(128);
  let payloads = sineFrames(hertz, rate, samples);
  let next = 0;
  let stream = 1;
  let lastArrival = 0;

  /** When frame n is there, in frames of the device: in order, as TCP has it. */
  const arrivalOf = (n) => {
    const sent = ((n + 1) * frameMs) / 1000 / speed;
    let arrival = sent + 0.02 - jitterMs * 1e-3 * Math.log(1 - random() * 0.999);
    for (const { at, ms } of slower) if (sent >= at) arrival += ms / 1000;
    for (const { at, ms } of stalls) {
      if (arrival >= at && arrival < at + ms / 1000) arrival = at + ms / 1000;
    }
    lastArrival = Math.max(lastArrival + apartMs / 1000, arrival);
    return lastArrival * contextRate;
  };
  let arrival = arrivalOf(0);

  const figures = [];
  const kept = keep.map(() => []);
  // A sine obeys x[n] = 2 cos(w) x[n-1] - x[n-2]; what does not is a click.
  const factor = 2 * Math.cos((2 * Math.PI * hertz * speed) / contextRate);
  let before = 0;
  let last = 0;
  let click = 0;
  let clickAt = 0;
  let skippedMs = 0;
  let timeBefore = 0;
  const quanta = Math.floor((seconds * contextRate) / 128);
  for (let quantum = 0, now = 0; quantum < quanta; quantum++, now += 128) {
    while (arrival <= now) {
      while (restarts.length > 0 && now / contextRate >= restarts[0]) {
        restarts.shift();
        stream++;
        rate = options.restartRate ?? rate;
        samples = (rate * frameMs) / 1000;
        payloads = sineFrames(hertz, rate, samples);
      }
      const first = next * samples;
      if (!lost.includes(next)) {
        player.push(
          {
            stream,
            sampleRate: rate,
            sequence: next,
            sampleCount: samples,
            channelCount: 1,
            timestamp: 1e14 + first,
            timeUs: 1e15 + (first / rate) * 1e6,
            mixed: false,
            maskLo: 1,
            maskHi: 0,
            discontinuity: next === 0,
            concealed: false,
            samples: payloads(first),
          },
          now,
        );
      }
      next++;
      arrival = arrivalOf(next);
    }
    const second = now / contextRate;
    if (setLater !== undefined && second >= setLater.at) {
      player.setTarget(setLater.bufferMs);
      setLater = undefined;
    }
    player.render(left, right, now);
    for (let i = 0; i < 128; i++) {
      const sample = left[i];
      const residue = Math.abs(sample - factor * last + before);
      if (second > 2 && residue > click) {
        click = residue;
        clickAt = second;
      }
      before = last;
      last = sample;
    }
    for (let index = 0; index < keep.length; index++) {
      if (second >= keep[index][0] && second < keep[index][1]) kept[index].push(...left);
    }
    const told = player.figures(now + 128);
    if (told.timeUs > 0 && timeBefore > 0) {
      const ms = (told.timeUs - timeBefore) / 1000 - 128e3 / contextRate;
      if (ms > 1) skippedMs += ms; // by far more than what clocks that differ take
    }
    timeBefore = told.timeUs;
    if (quantum % Math.floor(contextRate / 128) === 0) figures.push({ second, ...told, skippedMs });
  }
  return { figures, click, clickAt, kept: kept.map((samples) => encode(Float32Array.from(samples))) };
}
