/**
 * Asking again and again, while somebody looks.
 * @module
 */

const SLOWEST_MS = 30_000;

/**
 * Calls `ask` at once and then `everyMs` after each answer, not while the page is hidden, and ever
 * more rarely while it fails.
 * @param {() => Promise<unknown>} ask
 * @param {number} everyMs
 * @param {(error: unknown) => void} [failed]
 * @returns {() => void} ends it
 */
export function poll(ask, everyMs, failed = () => {}) {
  let timer = 0;
  let over = false;
  let failures = 0;
  let asking = false;

  async function once() {
    clearTimeout(timer);
    if (over || asking || document.hidden) return;
    asking = true;
    try {
      await ask();
      failures = 0;
    } catch (error) {
      failures += 1;
      if (!over) failed(error);
    } finally {
      asking = false;
    }
    if (!over) timer = setTimeout(once, Math.min(SLOWEST_MS, everyMs * 2 ** Math.min(failures, 6)));
  }

  const shown = () => void once();
  document.addEventListener('visibilitychange', shown);
  void once();
  return () => {
    over = true;
    clearTimeout(timer);
    document.removeEventListener('visibilitychange', shown);
  };
}
