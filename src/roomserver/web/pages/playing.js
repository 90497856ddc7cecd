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

/** Says that it is there to be listened to: telephones that know the difference then take no heed of the switch that silences calls. */
export function beHeard() {
  /** @type {any} */
  const { audioSession } = navigator;
  if (audioSession) audioSession.type = 'playback';
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
