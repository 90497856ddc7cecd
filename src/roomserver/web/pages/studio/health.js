/**
 * How an upload and a listener fare, in words: what `sourceStatus` and `stats` say.
 * @module
 */

/**
 * @typedef {import('../../client/relay-client.js').SourceStatus} SourceStatus
 * @typedef {'excellent' | 'good' | 'fair' | 'poor' | 'unknown'} Level
 */

const ORDER = ['unknown', 'excellent', 'good', 'fair', 'poor'];
// Of the samples of a few seconds: what is lost beyond these is heard now and then, or all the time.
const FAIR_LOSS = 0.0005;
const POOR_LOSS = 0.01;
const FAIR_JITTER_MS = 30;

/** @param {Level} one @param {Level} other @returns {Level} */
function worse(one, other) {
  return ORDER.indexOf(one) >= ORDER.indexOf(other) ? one : other;
}

/** @param {number[]} now @param {number[] | undefined} then @param {number} index */
function grown(now, then, index) {
  return Math.max(0, (now[index] ?? 0) - (then?.[index] ?? 0));
}

/**
 * Whether a report may be of the stream that a later one is of: each stream is counted from 0.
 * @param {SourceStatus} before @param {SourceStatus} status
 */
function goesOn(before, status) {
  const came = (/** @type {SourceStatus} */ { received, late }, /** @type {number} */ index) => received[index] + late[index];
  return (
    before.received.length === status.received.length &&
    status.received.every((_, index) => came(status, index) >= came(before, index))
  );
}

/**
 * What an upload is like, from the newest report and one of a few seconds before.
 * @param {SourceStatus | null} status
 * @param {SourceStatus | null} before null, or of a stream before this one: since it began
 */
export function uploadHealth(status, before) {
  if (status === null) return { level: /** @type {Level} */ ('unknown'), causes: [], channels: [] };
  if (before && !goesOn(before, status)) before = null;
  const channels = status.received.map((_, index) => {
    const received = grown(status.received, before?.received, index);
    const lost = grown(status.lost, before?.lost, index);
    const late = grown(status.late, before?.late, index);
    const concealed = grown(status.concealed, before?.concealed, index);
    const of = received + concealed;
    return { index, received, lost, late, concealed, loss: of > 0 ? concealed / of : 0 };
  });
  const loss = Math.max(0, ...channels.map((channel) => channel.loss));
  const silent = channels.length > 0 && channels.every((channel) => channel.received === 0);
  /** @type {string[]} */
  const causes = [];
  /** @type {Level} */
  let level = status.jitterMs < 5 && loss === 0 ? 'excellent' : 'good';
  if (silent) {
    causes.push('silent');
    level = 'poor';
  }
  if (loss > FAIR_LOSS) {
    causes.push('loss');
    level = worse(level, loss > POOR_LOSS ? 'poor' : 'fair');
  }
  if (status.jitterMs > FAIR_JITTER_MS) {
    causes.push('jitter');
    level = worse(level, 'fair');
  }
  if (status.fillMs < status.targetMs / 4 && !silent) {
    causes.push('empty');
    level = worse(level, 'fair');
  }
  if (Math.abs(status.driftPpm) > 500) {
    causes.push('drift');
    level = worse(level, 'fair');
  }
  return { level, causes, channels };
}

/**
 * @typedef {{ at: number, bufferMs: number | null, jitterMs: number | null, latencyMs: number | null,
 *             lost: number | null }} PlayerReport
 */

/**
 * How a listener hears, of two reports of its player.
 * @param {PlayerReport | null} report
 * @param {PlayerReport | null} before
 * @returns {Level}
 */
export function listenerQuality(report, before) {
  if (!report || (report.latencyMs === null && report.lost === null)) return 'unknown';
  const lost = Math.max(0, (report.lost ?? 0) - (before?.lost ?? report.lost ?? 0));
  const seconds = before ? Math.max(1, (report.at - before.at) / 1e6) : 1;
  const lag = Math.max(0, (report.latencyMs ?? 0) - (report.bufferMs ?? 0));
  const jitter = report.jitterMs ?? 0;
  if (lag > 500 || lost / seconds > 5) return 'poor';
  if (lag > 250 || lost / seconds > 0.5 || jitter > 60) return 'fair';
  if (lag > 120 || lost > 0 || jitter > 15) return 'good';
  return 'excellent';
}

/**
 * How a whole stay was: of what was sent to it, how much had to be left out.
 * @param {{ framesSent: number, framesDropped: number, avgLatencyMs: number | null }} stay
 * @returns {Level}
 */
export function stayQuality({ framesSent, framesDropped, avgLatencyMs }) {
  const all = framesSent + framesDropped;
  if (all === 0) return 'unknown';
  const share = framesDropped / all;
  const latency = avgLatencyMs ?? 0;
  if (share > 0.02 || latency > 1500) return 'poor';
  if (share > 0.002 || latency > 700) return 'fair';
  if (share > 0 || latency > 300) return 'good';
  return 'excellent';
}
