// messages.js - one message on the page, and how a running answer is drawn.
import { copyButton, el, iconButton } from './dom.js';
import { render } from './markdown.js';
import { shown } from './store.js';

const number = new Intl.NumberFormat('en', { maximumFractionDigits: 0 });

const endings = {
  stop: null,
  length: 'cut off at its longest length',
  stopped: 'stopped',
  lost: 'broke off',
};

function milliseconds(ms) {
  return ms < 1000 ? `${number.format(ms)} ms` : `${(ms / 1000).toFixed(1)} s`;
}

/** "142 tokens · 3,900 tokens/s · first after 12 ms · stopped" */
export function summary(answer) {
  const { stats, finish } = answer;
  const parts = [];
  if (stats?.tokens) parts.push(`${number.format(stats.tokens)} token${stats.tokens === 1 ? '' : 's'}`);
  if (stats?.rate) parts.push(`${number.format(stats.rate)} tokens/s`);
  if (stats?.first) parts.push(`first after ${milliseconds(stats.first)}`);
  const ending = finish in endings ? endings[finish] : finish;
  if (ending) parts.push(ending);
  return parts.join(' · ');
}

export class MessageView {
  #message;
  #actions;
  #drawn = 0; // when, and for how long it took
  #cost = 0;
  #due = 0;

  /** actions: { again(), edit(text), choose(step), more() } */
  constructor(message, actions) {
    this.#message = message;
    this.#actions = actions;
    this.body = el('div.text');
    this.foot = el('div.message-foot');
    this.thoughts = null;
    this.root = el(`li.message.${message.role}`, null,
      el('h2.offscreen', null, message.role === 'user' ? 'You' : 'Answer'), this.body, this.foot);
    this.draw();
  }

  draw() {
    this.#due = 0;
    if (this.#message.role === 'user') this.#drawUser();
    else this.#drawAnswer();
  }

  /** Soon: no more often than drawing leaves time for other things. */
  drawSoon() {
    if (this.#due) return;
    const wait = Math.max(0, this.#drawn + 3 * this.#cost - performance.now());
    this.#due = setTimeout(() => this.#due && requestAnimationFrame(() => this.#due && this.draw()), wait);
  }

  /** The message box in place of the message. */
  edit() {
    const label = 'Edit your message';
    const box = el('textarea', { 'aria-label': label, rows: Math.min(12, this.#message.text.split('\n').length + 1) });
    const done = (text) => {
      this.root.classList.remove('editing');
      if (text === null || text.trim() === '') this.draw();
      else this.#actions.edit(text);
    };
    box.value = this.#message.text;
    box.addEventListener('keydown', (e) => {
      if (e.key === 'Escape') done(null);
      else if (e.key === 'Enter' && !e.shiftKey && !e.isComposing) done(box.value);
      else return;
      e.preventDefault();
      e.stopPropagation();
    });
    this.root.classList.add('editing');
    this.body.replaceChildren(box);
    this.foot.replaceChildren(
      el('button.button.primary', { type: 'button', onclick: () => done(box.value) }, 'Send'),
      el('button.button', { type: 'button', onclick: () => done(null) }, 'Cancel'));
    box.focus();
  }

  #drawUser() {
    this.body.textContent = this.#message.text;
    this.foot.replaceChildren(iconButton('edit', 'Edit this message', () => this.edit()),
      copyButton('Copy this message', () => this.#message.text));
  }

  #drawAnswer() {
    const answer = shown(this.#message);
    const begun = performance.now();
    const isRunning = answer.finish === null;
    this.root.classList.toggle('running', isRunning);
    this.root.setAttribute('aria-busy', String(isRunning));
    this.body.replaceChildren(...this.#thoughts(answer), render(answer.text));
    if (isRunning && !answer.text && !answer.thoughts) this.body.append(el('span.waiting', { role: 'img', 'aria-label': 'Waiting' }));
    if (answer.error) this.body.append(el('p.error', null, answer.error));
    if (isRunning) this.foot.replaceChildren(el('span.stats', null, this.pause ?? ''));
    else this.#drawTools(answer);
    this.#drawn = performance.now();
    this.#cost = this.#drawn - begun;
  }

  #thoughts(answer) {
    if (!answer.thoughts) return [];
    const isOpen = this.thoughts?.open ?? false;
    this.thoughts = el('details.thoughts', { open: isOpen }, el('summary', null, answer.text ? 'Thoughts' : 'Thinking …'),
      el('div', null, render(answer.thoughts)));
    return [this.thoughts];
  }

  #drawTools(answer) {
    const { versions, at } = this.#message;
    const tools = [copyButton('Copy the answer', () => answer.text),
      iconButton('again', 'Answer again', () => this.#actions.again())];
    if (answer.finish === 'length') tools.push(iconButton('more', 'Go on', () => this.#actions.more()));
    if (versions.length > 1) {
      const before = iconButton('left', 'The answer before', () => this.#actions.choose(-1));
      const after = iconButton('right', 'The answer after', () => this.#actions.choose(1));
      before.disabled = at === 0;
      after.disabled = at === versions.length - 1;
      tools.push(el('span.versions', null, before, `${at + 1} / ${versions.length}`, after));
    }
    this.foot.replaceChildren(...tools, el('span.stats', null, summary(answer)));
  }
}
