// settings.js - the sampling controls: one table makes the form, its memory and the fields of a request.
import { byId, el } from './dom.js';
import { settingsStore } from './store.js';

// Sliders have the ranges of OCI's sample; the box beside each also takes what the API takes beyond them.  What is at
// `neutral` is left out of the request.
const controls = [
  { name: 'max_tokens', label: 'Longest answer', hint: 'tokens', min: 256, max: 4096, step: 16, value: 256, least: 1 },
  { name: 'temperature', label: 'Temperature', hint: '0 takes the likeliest', min: 0.2, max: 2, step: 0.1, value: 1, least: 0 },
  { name: 'top_p', label: 'Top p', hint: 'share of likelihood', min: 0.1, max: 1, step: 0.05, value: 0.95, least: 0.01 },
  { name: 'top_k', label: 'Top k', hint: 'tokens, 0 is all', min: 0, max: 200, step: 1, value: 0, neutral: 0 },
  { name: 'min_p', label: 'Min p', hint: 'share of the likeliest', min: 0, max: 1, step: 0.01, value: 0, neutral: 0 },
  { name: 'repetition_penalty', label: 'Repetition penalty', hint: '1 is none', min: 1, max: 2, step: 0.05, value: 1, neutral: 1, least: 0.1 },
  { name: 'presence_penalty', label: 'Presence penalty', hint: '0 is none', min: -2, max: 2, step: 0.1, value: 0, neutral: 0 },
  { name: 'frequency_penalty', label: 'Frequency penalty', hint: '0 is none', min: -2, max: 2, step: 0.1, value: 0, neutral: 0 },
];
const texts = ['system', 'seed', 'stop'];

export class Settings {
  constructor() {
    this.values = { ...this.#defaults(), ...settingsStore.load() };
    byId('controls').replaceChildren(...controls.map((c) => this.#row(c)));
    for (const name of texts) {
      const field = byId(name);
      field.value = this.values[name] ?? '';
      field.addEventListener('input', () => this.#set(name, field.value));
    }
    byId('reset').addEventListener('click', () => this.#reset());
  }

  /** The sampling fields of a request. */
  fields() {
    const fields = {};
    for (const c of controls) if (this.values[c.name] !== c.neutral) fields[c.name] = this.values[c.name];
    if (/^\d+$/.test(this.values.seed.trim())) fields.seed = Number(this.values.seed);
    const stop = this.values.stop.split('\n').filter((line) => line !== '');
    if (stop.length) fields.stop = stop.slice(0, 4);
    return fields;
  }

  get system() {
    return this.values.system.trim();
  }

  /** The model's context: no slider goes past it. */
  limit(tokens) {
    const slider = byId('control-max_tokens');
    slider.max = Math.min(4096, tokens);
    slider.min = Math.min(256, tokens);
  }

  #defaults() {
    return { ...Object.fromEntries(controls.map((c) => [c.name, c.value])), system: '', seed: '', stop: '' };
  }

  #set(name, value) {
    this.values[name] = value;
    settingsStore.save(this.values);
  }

  #row(c) {
    const id = `control-${c.name}`;
    const slider = el('input', { type: 'range', id, min: c.min, max: c.max, step: c.step, value: this.values[c.name] });
    const box = el('input.number', { type: 'number', min: c.least ?? c.min, max: c.name === 'max_tokens' ? null : c.max, step: 'any',
      value: this.values[c.name], 'aria-label': `${c.label}, exact` });
    slider.addEventListener('input', () => {
      box.value = slider.value;
      this.#set(c.name, Number(slider.value));
    });
    box.addEventListener('change', () => {
      if (box.value === '' || !box.validity.valid) box.value = this.values[c.name];
      slider.value = box.value;
      this.#set(c.name, Number(box.value));
    });
    return el('div.control', null,
      el('div.control-head', null, el('label', { for: id }, c.label, el('small', null, c.hint)), box), slider);
  }

  #reset() {
    const { system } = this.values;
    this.values = { ...this.#defaults(), system };
    settingsStore.save(this.values);
    byId('controls').replaceChildren(...controls.map((c) => this.#row(c)));
    byId('seed').value = byId('stop').value = '';
    document.dispatchEvent(new Event('settingsreset'));
  }
}
