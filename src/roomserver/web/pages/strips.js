/**
 * The strips of a mixer, one per channel, and the master: for one's own mix and for somebody else's.
 * @module
 */
import './faders.js';
import { classMap, html, nothing, ref } from './dom.js';
import { toDb } from './scales.js';
import { texts } from './texts.js';

/** @typedef {{ faders: number[], pans: number[], mutes: boolean[], solos: boolean[], master: number }} FullMix */

/**
 * @param {object} mixer
 * @param {string[]} mixer.names of the channels
 * @param {() => FullMix} mixer.current the mix, as long as the names at least. It is asked when something is moved,
 *   too: between two drawings another finger may have moved something else.
 * @param {(change: Partial<FullMix>) => void} mixer.change called with whole lists, while it is moved
 * @param {import('./meters.js').Meters} [mixer.meters] draws levels into the strips
 */
export function strips({ names, current, change, meters }) {
  const mix = current();
  const soloed = mix.solos.slice(0, names.length).some(Boolean);
  /** @param {'faders' | 'pans' | 'mutes' | 'solos'} name @param {number} index @param {(old: any) => any} to */
  const set = (name, index, to) => change({ [name]: current()[name].map((old, i) => (i === index ? to(old) : old)) });
  const toggled = (/** @type {boolean} */ old) => !old;
  return html`
    <div class="mixer" ${meters ? ref(meters.attach) : nothing}><div class="desk">
      <ol class="strips" role="list" tabindex="-1">
        ${names.map((name, i) => html`
          <li class="strip ${classMap({ silenced: mix.mutes[i] || (soloed && !mix.solos[i]) })}" data-channel=${i}>
            <span class="name" title=${name}>${name}</span>
            <relay-pan aria-label=${texts.mixer.pan(name)} .value=${mix.pans[i]}
              @input=${(/** @type {CustomEvent} */ e) => set('pans', i, () => e.detail.value)}></relay-pan>
            <div class="travel">
              <span class="meter"><i class="cover"></i><i class="peak"></i></span>
              <relay-fader aria-label=${texts.mixer.fader(name)} .value=${mix.faders[i]}
                @input=${(/** @type {CustomEvent} */ e) => set('faders', i, () => e.detail.value)}></relay-fader>
            </div>
            <span class="db figures" aria-hidden="true">${decibels(mix.faders[i])}</span>
            <div class="switches">
              <button type="button" class="mute" aria-pressed=${mix.mutes[i]} aria-label=${texts.mixer.mute(name)}
                @click=${() => set('mutes', i, toggled)}>M</button>
              <button type="button" class="solo" aria-pressed=${mix.solos[i]} aria-label=${texts.mixer.solo(name)}
                @click=${() => set('solos', i, toggled)}>S</button>
            </div>
          </li>`)}
      </ol>
      <div class="strip master" data-channel="master">
        <span class="name">${texts.mixer.master}</span>
        <div class="travel">
          <span class="meter" data-side="0"><i class="cover"></i><i class="peak"></i></span>
          <relay-fader aria-label=${texts.mixer.fader(texts.mixer.master)} .value=${mix.master}
            @input=${(/** @type {CustomEvent} */ e) => change({ master: e.detail.value })}></relay-fader>
          <span class="meter" data-side="1"><i class="cover"></i><i class="peak"></i></span>
        </div>
        <span class="db figures" aria-hidden="true">${decibels(mix.master)}</span>
      </div>
    </div></div>`;
}

/** A mix in which nothing was touched. @param {number} channels @returns {FullMix} */
export function restingMix(channels) {
  const each = (/** @type {any} */ value) => Array(channels).fill(value);
  return { faders: each(1), pans: each(0), mutes: each(false), solos: each(false), master: 1 };
}

/** @param {number} linear */
function decibels(linear) {
  const db = toDb(linear);
  if (db < -89.95) return '−∞';
  const text = Math.abs(db).toFixed(1);
  return text === '0.0' ? text : `${db < 0 ? '−' : '+'}${text}`;
}
