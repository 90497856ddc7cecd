// The player's jitter buffer: frames in as they come, a steady stereo signal out.

import { Concealer } from './conceal.js';
import { Mixer } from './mixer.js';
import { Arrivals, ClockFollower } from './playout.js';
import { Resampler } from './resampler.js';
import { MAX_CHANNELS } from './wire.js';

const MOST_SAMPLES = 5760; // of a frame: 60 ms at 96 kHz
const QUEUE = 16384; // two of them, and what the concealer looks back on
const MOST_SLOTS = 512;
const MOST_S = 3; // of audio that is kept; more is passed over
const DRY_S = 1; // without anything to play: the next frame begins anew
const LATE_S = 0.2; // when all that came for so long is late, the delay is set anew
const JUMP_S = 0.15; // of delay too much: waited for, lest it be a passing one, and then
const JUMP_AFTER_S = 1; // left out at once
const JUMP_NOW_S = 0.5;
const SETTLED_S = 0.04; // after a start, which may be amid a burst: what that leaves does not pass
const SETTLING_S = 3; // from a start on, and from what was left out then: more may come

/**
 * What a frame says besides its samples. `mixed`: the payload is left and right as the server mixed
 * them; else the mask (two words of 32 bits) says which channels of the room it holds.
 * @typedef {import('./wire.js').Frame & {sampleRate: number, mixed: boolean, maskLo: number,
 *   maskHi: number}} PlayerFrame
 */
/**
 * @typedef {{samples: Int16Array | Float32Array, channelCount: number, sampleCount: number,
 *   timestamp: number, timeUs: number, mixed: boolean, maskLo: number, maskHi: number}} Slot
 */
/**
 * @typedef {{playing: boolean, bufferMs: number, targetMs: number, driftPpm: number,
 *   underruns: number, concealedSamples: number, lateFrames: number, timeUs: number}} Figures
 * `timeUs`: the server's time of the sample that is played at the moment asked about; 0 if none is.
 */

/** @returns {Slot} */
function emptySlot() {
  return {
    samples: new Int16Array(0),
    channelCount: 0,
    sampleCount: 0,
    timestamp: 0,
    timeUs: 0,
    mixed: false,
    maskLo: 0,
    maskHi: 0,
  };
}

/** In the ring where no frame is. */
const NOTHING = emptySlot();

/**
 * Frames wait here for their moment, are mixed to stereo at the source's rate, and resampled to the
 * context's clock. The delay is steered by the resampler's ratio alone; where samples are missing
 * (lost, late, or another stream begins) the sound is continued and blended over.
 *
 * It knows no audio worklet: `now` is the number of the context's frame that is rendered next.
 * Memory is allocated while more frames wait than ever before, and when the rate changes.
 */
export class JitterBuffer {
  #contextRate;
  #quantum;
  /** @type {number | null} */
  #fixedMs = null;
  #arrivals;
  #follower = new ClockFollower();
  #mixer = new Mixer();

  /** Frames in the order of the timeline: a ring. */
  #slots = Array.from({ length: MOST_SLOTS }, () => NOTHING);
  #head = 0;
  #count = 0;
  /** Slots without a frame, the last one used on top: no more than needed grow to a frame's size. */
  #free = /** @type {Slot[]} */ ([]);

  // The stream that is played. Delays count against `#origin`, its first timestamp.
  #stream = -1;
  #sampleRate = 0;
  #scale = 1; // frames of the context per sample
  #origin = 0;
  #started = false;
  #settleUntil = 0;
  #mostTarget = 0; // since the start, or since it was set
  #readAt = 0; // timestamp behind the last sample in the queue

  // Stereo at the source's rate: read at #position, written at #end.
  #left = new Float32Array(QUEUE);
  #right = new Float32Array(QUEUE);
  #position = 0;
  #end = 0;
  #resamplers;
  #resampler;
  #concealer = new Concealer(48000);
  #concealing = true;

  /** What is still heard of a stream of another rate, at the context's: begins at #tailAt. */
  #tailLeft = new Float32Array(0);
  #tailRight = new Float32Array(0);
  #tailAt = 0;

  #dryFor = 0; // samples made up since the last real one
  #lateSince = NaN;
  #excessSince = NaN;
  #lastTimeUs = 0; // of sample #lastTimestamp
  #lastTimestamp = 0;
  #underruns = 0;
  #concealed = 0;
  #late = 0;

  /**
   * @param {number} contextRate Of the output.
   * @param {import('./resampler.js').ResamplerTable[]} tables `resamplerTables(contextRate)`, made
   *   where nothing waits for it.
   * @param {number} [quantum] Frames that are rendered at once.
   */
  constructor(contextRate, tables, quantum = 128) {
    this.#resamplers = tables.map((table) => new Resampler(table));
    this.#resampler = this.#resamplers[0];
    this.#contextRate = contextRate;
    this.#quantum = quantum;
    this.#arrivals = new Arrivals(contextRate);
  }

  /** Of what is mixed here, from the next frame on. @param {import('./mixer.js').FullMix} mix */
  setMix(mix) {
    this.#mixer.setMix(mix);
  }

  /** A fixed target of the delay, or null: adaptive. @param {number | null} ms */
  setTarget(ms) {
    this.#fixedMs = ms;
    this.#mostTarget = 0;
  }

  /** Linear peak and RMS by channel of the room; see `Mixer`. @param {Float32Array} into */
  takeLevels(into) {
    this.#mixer.takeLevels(into);
  }

  /** Takes a frame in; its samples are copied. @param {PlayerFrame} frame @param {number} now */
  push(frame, now) {
    const { sampleCount, channelCount } = frame;
    if (sampleCount === 0 || sampleCount > MOST_SAMPLES) return;
    if (channelCount === 0 || channelCount > MAX_CHANNELS) return;
    if (frame.stream !== this.#stream || frame.sampleRate !== this.#sampleRate) {
      this.#begin(frame);
    } else if (frame.discontinuity && this.#count > 0 && frame.timestamp !== this.#tailEnd()) {
      this.#begin(frame); // timestamps need not adjoin: their relation to time is new
    } else if (!this.#started && this.#count === 0) {
      this.#begin(frame);
    }
    const delay = now - (frame.timestamp - this.#origin) * this.#scale;
    this.#arrivals.add(delay, now);
    const end = frame.timestamp + frame.sampleCount;
    if (this.#count > 0 && end <= this.#tailEnd()) return; // sent again after a reconnect
    if (this.#started && this.#dryFor > 0) this.#grow(now);
    if (this.#started && end <= this.#readAt) {
      this.#late++;
      this.#comeTooLate(delay, now);
      if (end <= this.#readAt) return;
    } else {
      this.#lateSince = NaN;
    }
    if (this.#count === MOST_SLOTS || this.#heldSeconds() > MOST_S) this.#drop();
    this.#keep(frame);
  }

  /** The next samples. @param {Float32Array} left @param {Float32Array} right @param {number} now */
  render(left, right, now) {
    const count = left.length;
    if (this.#sampleRate === 0) {
      left.fill(0);
      right.fill(0);
      return;
    }
    if (!this.#started) this.#tryStart(now);
    const ratio = this.#started ? this.#steer(now, count) : 0;
    this.#read(left, right, (1 + ratio) / this.#scale);
    this.#addTail(left, right);
  }

  /** From the queue. @param {Float32Array} left @param {Float32Array} right @param {number} step Samples per frame. */
  #read(left, right, step) {
    const samples = left.length * step;
    while (this.#end - this.#position < samples + this.#resampler.half + 1) this.#produce();
    this.#resampler.process(this.#left, this.#right, this.#position, step, left, right);
    this.#position += samples;
  }

  /** @param {number} now @returns {Figures} */
  figures(now) {
    const playing = this.#started && this.#dryFor === 0;
    const ms = 1000 / this.#contextRate;
    const played = this.#readAt - (this.#end - this.#position);
    const behind = ((played - this.#lastTimestamp) * 1e6) / (this.#sampleRate || 1);
    return {
      playing,
      bufferMs: this.#started ? Math.max(0, (this.#delay(now) - this.#arrivals.base) * ms) : 0,
      targetMs: this.#target() * ms,
      driftPpm: this.#follower.drift * 1e6,
      underruns: this.#underruns,
      concealedSamples: this.#concealed,
      lateFrames: this.#late,
      timeUs: playing ? this.#lastTimeUs + behind : 0,
    };
  }

  // --- frames ---------------------------------------------------------------------------------

  /** @param {PlayerFrame} frame */
  #keep(frame) {
    const slot = this.#free.pop() ?? emptySlot();
    this.#slots[(this.#head + this.#count) % MOST_SLOTS] = slot;
    const { samples } = frame;
    if (
      slot.samples.constructor !== samples.constructor ||
      slot.samples.length < samples.length
    ) {
      const room = Math.ceil(samples.length * 1.1); // frames may have a sample more
      slot.samples =
        samples instanceof Int16Array ? new Int16Array(room) : new Float32Array(room);
    }
    slot.samples.set(samples);
    slot.channelCount = frame.channelCount;
    slot.sampleCount = frame.sampleCount;
    slot.timestamp = frame.timestamp;
    slot.timeUs = frame.timeUs;
    slot.mixed = frame.mixed;
    slot.maskLo = frame.maskLo;
    slot.maskHi = frame.maskHi;
    this.#count++;
  }

  #drop() {
    this.#free.push(this.#slots[this.#head]);
    this.#head = (this.#head + 1) % MOST_SLOTS;
    this.#count--;
  }

  #tailEnd() {
    const tail = this.#slots[(this.#head + this.#count - 1) % MOST_SLOTS];
    return tail.timestamp + tail.sampleCount;
  }

  #heldSeconds() {
    if (this.#count === 0) return 0;
    return (this.#tailEnd() - this.#slots[this.#head].timestamp) / this.#sampleRate;
  }

  // --- delay ----------------------------------------------------------------------------------

  /** Of what is played at `now`, against the origin. @param {number} now */
  #delay(now) {
    const played = this.#readAt - (this.#end - this.#position);
    return now - (played - this.#origin) * this.#scale;
  }

  /** How much of it to hold back beyond the base, in frames of the context. */
  #target() {
    const ahead = this.#resampler.half * this.#scale;
    const least = this.#quantum + ahead;
    if (this.#fixedMs !== null) {
      return Math.max(least, (this.#fixedMs * this.#contextRate) / 1000);
    }
    return this.#arrivals.target(this.#quantum, ahead);
  }

  /** A stream begins: what is held of another one is dropped. @param {PlayerFrame} frame */
  #begin(frame) {
    this.#break();
    this.#started = false;
    while (this.#count > 0) this.#drop();
    if (frame.sampleRate !== this.#sampleRate) {
      if (this.#sampleRate > 0) this.#keepTail();
      this.#sampleRate = frame.sampleRate;
      this.#scale = this.#contextRate / frame.sampleRate;
      this.#resampler = this.#resamplerFor(frame.sampleRate / this.#contextRate);
      this.#concealer = new Concealer(frame.sampleRate);
      this.#concealer.startSilent();
      this.#left.fill(0);
      this.#right.fill(0);
      this.#position = this.#end = this.#concealer.history + this.#resampler.half;
    }
    this.#stream = frame.stream;
    this.#origin = frame.timestamp;
    this.#arrivals.reset();
    this.#lateSince = this.#excessSince = NaN;
  }

  /** @param {number} stretch */
  #resamplerFor(stretch) {
    const found = this.#resamplers.find((each) => each.stretch >= stretch);
    return found ?? /** @type {Resampler} */ (this.#resamplers.at(-1));
  }

  /** What the queue holds of the old stream, and its fading out, before another rate begins. */
  #keepTail() {
    const samples = this.#end - this.#position + this.#concealer.tail;
    const quanta = Math.ceil((samples * this.#scale) / this.#quantum);
    const left = new Float32Array(quanta * this.#quantum);
    const right = new Float32Array(quanta * this.#quantum);
    const step = (1 + this.#follower.drift) / this.#scale;
    for (let at = 0; at < left.length; at += this.#quantum) {
      const to = at + this.#quantum;
      this.#read(left.subarray(at, to), right.subarray(at, to), step);
    }
    this.#addTail(left, right); // of one before it
    this.#tailLeft = left;
    this.#tailRight = right;
    this.#tailAt = 0;
  }

  /** @param {Float32Array} left @param {Float32Array} right */
  #addTail(left, right) {
    const count = Math.min(left.length, this.#tailLeft.length - this.#tailAt);
    for (let i = 0; i < count; i++) {
      left[i] += this.#tailLeft[this.#tailAt + i];
      right[i] += this.#tailRight[this.#tailAt + i];
    }
    this.#tailAt += count;
  }

  /** Plays what is due, once the delay aimed at has passed since it came. @param {number} now */
  #tryStart(now) {
    if (this.#count === 0) return;
    const delay = this.#arrivals.base + this.#target();
    const due = this.#origin + (now - delay) / this.#scale; // played at `now`
    while (this.#count > 1 && this.#slotEnd() <= due) this.#drop(); // of a burst
    const first = this.#slots[this.#head].timestamp;
    // The queue holds silence up to #end, which is what is played in between.
    this.#readAt = Math.round(due + (this.#end - this.#position));
    const lead = first - this.#readAt;
    if (lead > this.#quantum / this.#scale) return;
    if (lead > 0) this.#makeUp(lead);
    this.#readAt = Math.max(first, this.#readAt);
    this.#started = true;
    this.#settleUntil = now + SETTLING_S * this.#contextRate;
    this.#mostTarget = 0;
    this.#dryFor = 0;
    this.#follower.reset();
  }

  #slotEnd() {
    const slot = this.#slots[this.#head];
    return slot.timestamp + slot.sampleCount;
  }

  /** The ratio that brings the delay to its target; sets it anew where that would take too long. @param {number} now @param {number} count */
  #steer(now, count) {
    const held = this.#delay(now) - this.#arrivals.base;
    const target = this.#target();
    this.#mostTarget = Math.max(this.#mostTarget, target);
    const settling = now < this.#settleUntil;
    // Only what the base falls by is a burst's: what a falling target leaves was for a stall.
    const surplus = held - (settling ? this.#mostTarget : target);
    const seconds = surplus / this.#contextRate;
    if (!(seconds > (settling ? SETTLED_S : JUMP_S))) {
      this.#excessSince = NaN;
    } else {
      if (Number.isNaN(this.#excessSince)) this.#excessSince = now;
      const patience = seconds > JUMP_NOW_S || this.#dryFor > 0 ? 0 : JUMP_AFTER_S;
      if (now - this.#excessSince >= patience * this.#contextRate) {
        this.#jump(Math.round(surplus / this.#scale));
        if (settling) this.#settleUntil = now + SETTLING_S * this.#contextRate;
        return this.#follower.drift;
      }
    }
    if (this.#dryFor > 0) return this.#follower.drift; // nothing is heard that could be followed
    return this.#follower.steer((held - target) / this.#contextRate, count / this.#contextRate);
  }

  /** Goes on elsewhere on the timeline, blending over. @param {number} samples Forward. */
  #jump(samples) {
    this.#break();
    this.#readAt += samples;
    this.#excessSince = NaN;
    this.#follower.reset();
  }

  /** A frame came whose moment has passed. @param {number} delay @param {number} now */
  #comeTooLate(delay, now) {
    if (Number.isNaN(this.#lateSince)) this.#lateSince = now;
    if (now - this.#lateSince < LATE_S * this.#contextRate || this.#count > 0) return;
    // All that came for a while did: the way has become longer.
    this.#lateSince = NaN;
    this.#arrivals.reset();
    this.#arrivals.add(delay, now);
    this.#grow(now);
  }

  /** While nothing is heard anyway, the delay is raised to its target at once. @param {number} now */
  #grow(now) {
    const lacking = this.#arrivals.base + this.#target() - this.#delay(now);
    if (lacking > 0) this.#readAt -= Math.round(lacking / this.#scale);
  }

  // --- the queue ------------------------------------------------------------------------------

  /** Adds some samples to the queue. */
  #produce() {
    while (this.#count > 0 && this.#started && this.#slotEnd() <= this.#readAt) this.#drop();
    const slot = this.#slots[this.#head];
    if (!this.#started || this.#count === 0) {
      this.#makeUp(this.#quantum);
    } else if (slot.timestamp > this.#readAt) {
      this.#makeUp(Math.min(this.#quantum, slot.timestamp - this.#readAt));
    } else {
      this.#play(slot);
      this.#drop();
    }
  }

  /** @param {Slot} slot */
  #play(slot) {
    const first = this.#readAt - slot.timestamp;
    const count = slot.sampleCount - first;
    this.#makeRoom(count);
    if (slot.mixed) {
      this.#mixer.skip();
      const scale = slot.samples instanceof Int16Array ? 1 / 32768 : 1;
      for (let i = 0, k = 2 * first; i < count; i++, k += 2) {
        this.#left[this.#end + i] = slot.samples[k] * scale;
        this.#right[this.#end + i] = slot.samples[k + 1] * scale;
      }
    } else {
      this.#mixer.mix(slot, first, this.#left, this.#right, this.#end);
    }
    if (this.#concealing) {
      this.#concealing = !this.#concealer.resume(this.#left, this.#right, this.#end, count);
    }
    this.#dryFor = 0;
    this.#end += count;
    this.#readAt += count;
    this.#lastTimestamp = slot.timestamp;
    this.#lastTimeUs = slot.timeUs;
  }

  /** @param {number} count */
  #makeUp(count) {
    this.#makeRoom(count);
    this.#break();
    this.#concealer.fill(this.#left, this.#right, this.#end, count);
    this.#end += count;
    if (!this.#started) return;
    if (this.#dryFor === 0) this.#underruns++;
    this.#concealed += count;
    this.#dryFor += count;
    this.#readAt += count;
    // What comes next begins anew.
    if (this.#dryFor > DRY_S * this.#sampleRate && this.#count === 0) this.#started = false;
  }

  /** From here on samples are not the real ones. */
  #break() {
    if (this.#concealing && !this.#concealer.returning) return;
    this.#concealer.start(this.#left, this.#right, this.#end);
    this.#concealing = true;
  }

  /** Room for samples at the end of the queue; what may still be read stays. @param {number} count */
  #makeRoom(count) {
    if (this.#end + count <= QUEUE) return;
    const kept = Math.floor(this.#position) - this.#resampler.half;
    const from = Math.min(kept, this.#end - this.#concealer.history);
    this.#left.copyWithin(0, from, this.#end);
    this.#right.copyWithin(0, from, this.#end);
    this.#position -= from;
    this.#end -= from;
  }
}
