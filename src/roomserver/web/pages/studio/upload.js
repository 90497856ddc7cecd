/**
 * How the upload fares, in words first and figures on demand.
 * @module
 */

import { html, nothing } from '../dom.js';
import { number } from './format.js';
import { quality } from './quality.js';
import { t } from './texts.js';

/** @param {import('./studio.js').Studio} studio */
export function uploadPanel(studio) {
  const { health, broadcaster } = studio;
  const status = broadcaster?.status ?? null;
  const sent = broadcaster?.statistics;
  const names = broadcaster?.channelNames ?? [];
  const words = studio.state !== 'live' || status === null
    ? t.uploadIdle
    : health.causes.length
      ? health.causes.map((cause) => t.causes[/** @type {'loss'} */ (cause)]).join(' ')
      : t.uploadWell;
  return html`
    <section class="panel upload" aria-labelledby="upload-title">
      <header class="panel-head">
        <h2 id="upload-title">${t.upload}</h2>
        ${quality(health.level)}
      </header>
      <p role="status">${words}</p>
      ${status === null
        ? nothing
        : html`
            <details>
              <summary>${t.figures}</summary>
              <dl class="figures">
                ${figure(t.fill, `${number(status.fillMs)} / ${number(status.targetMs, 'ms')}`)}
                ${figure(t.jitter, number(status.jitterMs, 'ms'))}
                ${figure(t.drift, number(status.driftPpm, 'ppm'))}
                ${figure(t.roundTrip, number(sent?.rttMs, 'ms'))}
                ${figure(t.waiting, number((sent?.bufferedBytes ?? 0) / 1024, 'KiB'))}
                ${figure(t.notSent, number(sent?.droppedPackets))}
              </dl>
              <div class="scrolling" tabindex="0" role="region" aria-label=${t.perChannel}>
                <table>
                  <thead><tr><th scope="col">${t.channel}</th><th scope="col">${t.lost}</th>
                    <th scope="col">${t.late}</th><th scope="col">${t.concealed}</th></tr></thead>
                  <tbody>
                    ${health.channels.map(
                      (channel) => html`<tr><th scope="row">${names[channel.index] || channel.index + 1}</th>
                        <td>${number(status.lost[channel.index])}</td><td>${number(status.late[channel.index])}</td>
                        <td>${number(status.concealed[channel.index])}</td></tr>`,
                    )}
                  </tbody>
                </table>
              </div>
            </details>`}
    </section>`;
}

/** @param {string} name @param {string} value */
function figure(name, value) {
  return html`<div><dt>${name}</dt><dd>${value}</dd></div>`;
}
