/**
 * How many listened at each moment, from the stays.
 * @module
 */

/**
 * Steps: from `times[i]` on, `counts[i]` listened.
 * @param {{ role: string, joinedAt: number, leftAt: number | null, durationS: number | null }[]} stays times in Unix us
 * @returns {{ times: number[], counts: number[] }} times in Unix s, ascending
 */
export function occupancy(stays) {
  /** @type {Map<number, number>} */
  const changes = new Map();
  const add = (/** @type {number} */ at, /** @type {number} */ by) => changes.set(at, (changes.get(at) ?? 0) + by);
  for (const { role, joinedAt, leftAt, durationS } of stays) {
    if (role !== 'listener') continue;
    add(joinedAt, 1);
    // The duration is measured; the wall clock may have been set meanwhile.
    if (leftAt !== null) add(durationS === null ? Math.max(leftAt, joinedAt) : joinedAt + durationS * 1e6, -1);
  }
  let count = 0;
  const times = [];
  const counts = [];
  for (const [at, by] of [...changes].sort((a, b) => a[0] - b[0])) {
    if (by === 0) continue;
    count += by;
    times.push(at / 1e6);
    counts.push(count);
  }
  return { times, counts };
}

/**
 * Every day of a span, those without anybody with zeros: a chart of days has no holes.
 * @param {{ date: string, peakListeners: number, totalListenMinutes: number }[]} days those that were reported
 * @param {string} from as `2026-03-01`
 * @param {string} to both included
 */
export function everyDay(days, from, to) {
  const known = new Map(days.map((day) => [day.date, day]));
  const found = [];
  const last = Date.parse(to);
  for (let at = Date.parse(from); at <= last; at += 86_400_000) {
    const date = new Date(at).toISOString().slice(0, 10);
    const day = known.get(date);
    found.push({
      date,
      at: at / 1000,
      peakListeners: day?.peakListeners ?? 0,
      totalListenMinutes: day?.totalListenMinutes ?? 0,
    });
  }
  return found;
}
