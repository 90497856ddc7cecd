// Clocks: the page's own, which is never stepped, and the server's by `ping` and `pong`.

/** Unix microseconds: read once when the page was loaded, then carried on without steps. */
export function nowUs() {
  return Math.round((performance.timeOrigin + performance.now()) * 1000);
}

const WINDOW = 16;
/** Milliseconds between pings: a few quickly at first, so that the delay shown is soon right. */
const PING_INTERVALS_MS = [0, 100, 200, 500, 1000, 2000];

/** Milliseconds to wait before a ping. @param {number} count Its number, from 0. */
export function pingInterval(count) {
  return PING_INTERVALS_MS[Math.min(count, PING_INTERVALS_MS.length - 1)];
}

/**
 * The server's clock, estimated as NTP does.
 *
 * Of the last exchanges the one with the shortest round trip counts: the less a message queued,
 * the less its two ways can differ.
 */
export class ServerClock {
  /** @type {{roundTripUs: number, offsetUs: number}[]} */
  #exchanges = [];

  /**
   * Takes an exchange into account; all times in Unix microseconds.
   *
   * @param {number} sent Our clock when the ping was sent.
   * @param {number} received The server's when it was read.
   * @param {number} replied The server's when the pong was written.
   * @param {number} returned Ours when that was read.
   */
  add(sent, received, replied, returned) {
    const roundTripUs = Math.max(0, returned - sent - (replied - received));
    this.#exchanges.push({ roundTripUs, offsetUs: (received - sent + (replied - returned)) / 2 });
    if (this.#exchanges.length > WINDOW) this.#exchanges.shift();
  }

  /** Whether there was any exchange. */
  get known() {
    return this.#exchanges.length > 0;
  }

  /** What to add to our clock to get the server's; 0 before the first exchange. */
  get offsetUs() {
    return this.#best().offsetUs;
  }

  /** The shortest round trip of the window; 0 before the first exchange. */
  get roundTripUs() {
    return this.#best().roundTripUs;
  }

  #best() {
    let best = this.#exchanges[0] ?? { roundTripUs: 0, offsetUs: 0 };
    for (const each of this.#exchanges) if (each.roundTripUs < best.roundTripUs) best = each;
    return best;
  }
}
