// charts.js - a line chart that moves, with marks where something happened (uPlot draws it).
import uPlot from 'uplot';
import { el } from './dom.js';

const keptSeconds = 900;

const clocks = new Intl.DateTimeFormat('en-GB', { hour: '2-digit', minute: '2-digit', second: '2-digit' });

function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

export class Chart {
  #plot = null;
  #data;
  #span = 300;
  #marks;
  #lines;
  #format;

  /** lines: [{ label, value(samples) }]; marks: times, shared by all charts; format: a value to text */
  constructor(title, lines, format, marks) {
    this.#lines = lines;
    this.#format = format;
    this.#marks = marks;
    this.#data = [[], ...lines.map(() => [])];
    this.legend = el('div.legend', null, ...lines.map(() => el('span')));
    this.box = el('div.plot', { role: 'img' });
    this.title = title;
    this.root = el('section.chart', null, el('h3', null, title), this.legend, this.box);
    new ResizeObserver(() => this.#fit()).observe(this.box);
    this.#tell();
  }

  add(time, samples) {
    this.#data[0].push(time);
    this.#lines.forEach((line, i) => this.#data[i + 1].push(samples && line.value(samples)));
    while (this.#data[0][0] < time - keptSeconds) this.#data.forEach((column) => column.shift());
    this.#tell();
    this.draw();
  }

  set span(seconds) {
    this.#span = seconds;
    this.draw();
  }

  draw() {
    if (!this.#plot) this.#make();
    this.#plot?.setData(this.#data, false);
    this.#scale();
  }

  /** Colours have changed. */
  renew() {
    this.#plot?.destroy();
    this.#plot = null;
    this.draw();
  }

  #tell() {
    const now = this.#lines.map((line, i) => {
      const v = this.#data[i + 1].at(-1);
      return `${line.label} ${v === null || v === undefined ? 'none' : this.#format(v)}`;
    });
    now.forEach((text, i) => (this.legend.children[i].textContent = text.replace(/ none$/, ' –')));
    this.box.setAttribute('aria-label', `${this.title}: ${now.join(', ')}`);
  }

  #scale() {
    const end = this.#data[0].at(-1) ?? 0;
    const from = this.#data[0].findIndex((t) => t >= end - this.#span);
    const largest = Math.max(...this.#data.slice(1).map((column) => Math.max(0, ...column.slice(Math.max(0, from)))));
    this.#plot?.batch(() => {
      this.#plot.setScale('x', { min: end - this.#span, max: end });
      this.#plot.setScale('y', { min: 0, max: largest > 0 ? largest * 1.12 : 1 });
    });
  }

  #fit() {
    if (this.box.clientWidth > 0) this.#plot?.setSize({ width: this.box.clientWidth, height: this.box.clientHeight });
  }

  #make() {
    if (this.box.clientWidth === 0) return;
    const soft = colour('--soft');
    const grid = { stroke: colour('--line'), width: 1 };
    const axis = { stroke: soft, grid, ticks: { show: false }, font: '12px system-ui, sans-serif' };
    this.#plot = new uPlot({
      width: this.box.clientWidth,
      height: this.box.clientHeight,
      legend: { show: false },
      cursor: { show: false },
      scales: { x: { time: true, auto: false }, y: { auto: false } },
      axes: [
        { ...axis, space: 80, size: 28, values: (u, ticks) => ticks.map((t) => clocks.format(t * 1000)) },
        { ...axis, size: 58, space: 32, values: (u, ticks) => ticks.map(this.#format) },
      ],
      series: [{}, ...this.#lines.map((line, i) => ({
        stroke: colour(`--line-${i + 1}`),
        width: 1.75,
        points: { show: false },
        fill: i === 0 ? `${colour('--line-1')}1f` : undefined,
      }))],
      hooks: { draw: [(u) => this.#drawMarks(u)] },
    }, this.#data, this.box);
    this.#scale();
  }

  #drawMarks(u) {
    const { ctx, bbox } = u;
    ctx.save();
    ctx.strokeStyle = colour('--mark');
    ctx.lineWidth = 1.5 * devicePixelRatio;
    ctx.setLineDash([4 * devicePixelRatio, 3 * devicePixelRatio]);
    for (const time of this.#marks) {
      const x = u.valToPos(time, 'x', true);
      if (x < bbox.left || x > bbox.left + bbox.width) continue;
      ctx.beginPath();
      ctx.moveTo(x, bbox.top);
      ctx.lineTo(x, bbox.top + bbox.height);
      ctx.stroke();
    }
    ctx.restore();
  }
}
