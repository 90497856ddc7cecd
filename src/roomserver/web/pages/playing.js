/**
 * What the system is told while something plays: that the screen stays on, what the lock screen shows.
 * @module
 */
import { texts } from './texts.js';

export const canStayAwake = 'wakeLock' in navigator;

/** Keeps the screen on while that is wanted; browsers let go of it whenever the page is hidden. */
export class Awake {
  #wanted = false;
  /** @type {WakeLockSentinel | null} */
  #lock = null;
  #asking = false;

  constructor() {
    document.addEventListener('visibilitychange', () => void this.#settle());
  }

  /** @param {boolean} wanted */
  async want(wanted) {
    this.#wanted = wanted;
    await this.#settle();
  }

  async #settle() {
    if (!canStayAwake || this.#asking) return;
    if (!this.#wanted) {
      const lock = this.#lock;
      this.#lock = null;
      await lock?.release();
    } else if (!document.hidden && (this.#lock === null || this.#lock.released)) {
      this.#asking = true;
      try {
        this.#lock = await navigator.wakeLock.request('screen');
      } catch {
        // The battery is low, or it is forbidden: the sound goes on.
      } finally {
        this.#asking = false;
      }
      if (!this.#wanted) await this.#settle();
    }
  }
}

const SILENCE_S = 10; // what is shorter than five seconds gets no controls in Chromium
const SILENCE_HZ = 8000;

/**
 * Stands for the page's sound where systems know media elements alone: it is one that plays silence. With
 * it telephones show controls on their lock screens, go on with the screen off, and do not take the
 * switch that silences calls for theirs.
 */
export class Presence {
  /** @type {HTMLAudioElement | null} */
  #element = null;

  /** From a press, or browsers refuse it. */
  play() {
    /** @type {any} */
    const { audioSession } = navigator;
    if (audioSession) audioSession.type = 'playback';
    if (this.#element === null) {
      this.#element = new Audio(URL.createObjectURL(silence()));
      this.#element.loop = true;
    }
    this.#element.play().catch(() => {}); // the sound itself goes on without
  }

  pause() {
    this.#element?.pause();
  }
}

/** A WAV file of 8 bits. */
function silence() {
  const count = SILENCE_S * SILENCE_HZ;
  const header = new DataView(new ArrayBuffer(44));
  const tag = (/** @type {number} */ at, /** @type {string} */ text) => {
    for (let i = 0; i < text.length; i++) header.setUint8(at + i, text.charCodeAt(i));
  };
  tag(0, 'RIFF');
  header.setUint32(4, 36 + count, true);
  tag(8, 'WAVEfmt ');
  header.setUint32(16, 16, true);
  header.setUint16(20, 1, true); // PCM
  header.setUint16(22, 1, true); // channels
  header.setUint32(24, SILENCE_HZ, true);
  header.setUint32(28, SILENCE_HZ, true); // bytes a second
  header.setUint16(32, 1, true); // bytes a sample
  header.setUint16(34, 8, true);
  tag(36, 'data');
  header.setUint32(40, count, true);
  return new Blob([header, new Uint8Array(count).fill(128)], { type: 'audio/wav' });
}

/**
 * Headphone buttons and lock screens. @param {string} title @param {MediaSessionPlaybackState} state
 * @param {() => void} toggle
 */
export function tellSystem(title, state, toggle) {
  const { mediaSession } = navigator;
  if (!mediaSession) return;
  if (mediaSession.metadata?.title !== title) {
    mediaSession.metadata = new MediaMetadata({ title, artist: location.host, album: texts.brand });
  }
  mediaSession.playbackState = state;
  mediaSession.setActionHandler('play', state === 'playing' ? null : toggle);
  for (const action of /** @type {const} */ (['pause', 'stop'])) {
    mediaSession.setActionHandler(action, state === 'playing' ? toggle : null);
  }
}
