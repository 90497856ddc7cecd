/**
 * A chart of one figure over time that fits its place and the colours of the page.
 * @module
 */

import uPlot from '../../vendor/uplot/uPlot.esm.js';

const HEIGHT = 200;

export class Chart {
  /**
   * @param {{ label: string, bars?: boolean, colour?: string, utc?: boolean, format: (value: number) => string }} options
   *   colour: a custom property of the style sheets
   */
  constructor(options) {
    this._options = options;
    /** @type {[number[], (number | null)[]]} */
    this._data = [[], []];
    /** @type {[number, number] | null} Unix s */
    this._span = null;
    /** @type {uPlot | null} */
    this._plot = null;
    /** What is put into the page. */
    this.element = document.createElement('div');
    this.element.className = 'chart';
    this.element.setAttribute('role', 'img');
    this.element.setAttribute('aria-label', options.label);
    this._probe = this.element.appendChild(document.createElement('span'));
    this._probe.hidden = true;
    this._sizes = new ResizeObserver(() => this._fit());
    this._sizes.observe(this.element);
    this._recolour = () => this._make();
    addEventListener('themechange', this._recolour);
    this._scheme = matchMedia('(prefers-color-scheme: dark)');
    this._scheme.addEventListener('change', this._recolour);
  }

  /**
   * @param {number[]} times Unix s, ascending
   * @param {(number | null)[]} values
   * @param {[number, number]} span what is shown, in Unix s
   * @param {string} told the same for those who don't see it
   */
  set(times, values, span, told) {
    this._data = [times, values];
    this._span = span;
    this.element.setAttribute('aria-label', told);
    if (this._plot) this._plot.setData(this._data);
    else this._make();
  }

  dispose() {
    this._sizes.disconnect();
    removeEventListener('themechange', this._recolour);
    this._scheme.removeEventListener('change', this._recolour);
    this._plot?.destroy();
  }

  _fit() {
    const width = this.element.clientWidth;
    if (width === 0) return;
    if (this._plot) this._plot.setSize({ width, height: HEIGHT });
    else this._make();
  }

  /** @param {string} name of a custom property */
  _colour(name) {
    // A canvas knows no light-dark(): the style engine says what it comes to.
    this._probe.style.color = `var(${name})`;
    return getComputedStyle(this._probe).color;
  }

  _make() {
    this._plot?.destroy();
    this._plot = null;
    const width = this.element.clientWidth;
    if (width === 0 || this._span === null) return;
    const { label, bars, colour = '--accent', utc, format } = this._options;
    const stroke = this._colour(colour);
    const grid = { stroke: this._colour('--line'), width: 1 };
    const axis = { stroke: this._colour('--text-soft'), grid, ticks: grid, font: '12px system-ui, sans-serif' };
    const paths = bars ? uPlot.paths.bars?.({ size: [0.7, 40] }) : uPlot.paths.stepped?.({ align: 1 });
    this._plot = new uPlot(
      {
        width,
        height: HEIGHT,
        legend: { live: true },
        cursor: { drag: { x: false, y: false } },
        ...(utc ? { tzDate: (/** @type {number} */ at) => uPlot.tzDate(new Date(at * 1000), 'Etc/UTC') } : {}),
        scales: {
          x: { range: () => /** @type {[number, number]} */ (this._span) },
          y: { range: (_plot, _least, most) => [0, Math.max(4, Math.ceil((most ?? 0) * 1.15))] },
        },
        axes: [axis, { ...axis, size: 44, values: (_plot, values) => values.map((value) => (Number.isInteger(value) ? format(value) : '')) }],
        series: [
          {},
          {
            label,
            stroke,
            fill: this._colour(bars ? colour : '--accent-wash'),
            width: 2,
            paths,
            points: { show: false },
            value: (_plot, value) => (value === null ? '–' : format(value)),
          },
        ],
      },
      this._data,
      this.element,
    );
  }
}
